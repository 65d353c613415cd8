# SPDX-License-Identifier: MIT
"""The Python binding's arrays, explanations and maps, each once, against expected
numbers or PyTorch; contexts, loading and building are in test_binding.py."""

import ctypes as C
import gc
import threading

import ml_dtypes  # comes with onnx
import numpy as np
import pytest
from onnx import numpy_helper

from test_binding import GARMENTS, IMAGE, RNG, expected, gradcam, heat  # noqa: F401  (expected is a fixture)

torch = pytest.importorskip("torch")

# ---- arrays ----


def relu_net():
    with gradcam.Builder() as b:
        b.input("x", (None,) * 4)
        b.node("Relu", ["x"], ["y"])
        b.output("y")
        return b.finish()


def test_inputs_are_lent():
    x = np.full((1, 2, 3, 4), -1, np.float32)
    with gradcam.Run(relu_net()) as run:
        assert run.set_input("x", x) is x
        run.forward()
        x[...] = 5
        run.forward()
        assert run.value("y").min() == 5


@pytest.mark.parametrize("change", ["transpose", "slice", "broadcast", "reverse", "double", "half", "swapped",
                                    "list", "scalar dims", "unaligned"])
def test_any_array(change):
    x = RNG.standard_normal((2, 3, 4, 6)).astype(np.float32)
    spare = np.zeros(1 + x.nbytes, np.uint8)
    given = {"transpose": lambda: x.transpose(0, 3, 1, 2), "slice": lambda: x[:, :, ::2, 1:5:3],
             "broadcast": lambda: np.broadcast_to(x[:1], (5, 3, 4, 6)), "reverse": lambda: x[::-1, :, :, ::-1],
             "double": lambda: x.astype(np.float64), "half": lambda: x.astype(np.float16),
             "swapped": lambda: x.astype(">f4"), "list": x.tolist,
             "scalar dims": lambda: np.broadcast_to(np.float32(3), (2, 2, 2, 2)),
             "unaligned": lambda: spare[1:].view(np.float32).reshape(x.shape)}[change]()
    if change == "unaligned":
        given[...] = x
    with gradcam.Run(relu_net()) as run:
        kept = run.set_input("x", given)
        assert np.shares_memory(kept, given) == (change in ("transpose", "slice", "broadcast", "double", "half"))
        run.forward()
        assert np.array_equal(run.value("y"), np.maximum(np.asarray(given).astype(np.float32), 0))


def test_types():
    """What the library has no type for is refused; bfloat16 goes in either way."""
    with gradcam.Run(relu_net()) as run:
        for dtype in (np.complex64, np.int8, "U4", object):
            with pytest.raises(TypeError, match="no element type"):
                run.set_input("x", np.zeros((1, 1, 1, 1), dtype))
        values = np.array([1.5, -2, 3, 0.25], np.float32).reshape(1, 1, 2, 2)
        bits = (values.view(np.uint32) >> 16).astype(np.uint16)
        run.set_input("x", bits.view(gradcam.BFLOAT16))
        run.forward()
        assert np.array_equal(run.value("y"), np.maximum(values, 0))
        run.set_input("x", values.astype(ml_dtypes.bfloat16))
        run.forward()
        assert np.array_equal(run.value("y"), np.maximum(values, 0))


def test_views():
    x = np.ones((1, 2, 3, 4), np.float32)
    with gradcam.Run(relu_net()) as run:
        run.set_input("x", x)
        run.forward()
        seen, copied = run.value("y", copy=False), run.value("y")
        assert not seen.flags.writeable and copied.flags.writeable
        x *= 2
        run.forward()
        assert seen.min() == 2 and copied.max() == 1
        assert run.arena_bytes >= x.nbytes


def test_a_map_outlives_everything(expected):
    got = heat(gradcam.Net(GARMENTS))
    gc.collect()
    part = got[0]
    del got
    gc.collect()
    assert np.array_equal(part, expected[0])


# ---- explanations ----


def test_report():
    net = gradcam.Net(GARMENTS)
    with gradcam.Run(net) as run:
        run.set_input(None, IMAGE)
        assert run.report is None
        run.gradcam()
        first = run.report
        run.watch(first.layer)
        run.forward()
        scores = run.value(first.output)
        assert first.index == scores.argmax() and first.score == scores.max()
        assert first.warnings == 0 and first.rule_nodes == []
        assert net.producer(first.layer) is not None and first.layer in repr(first)
        run.gradcam(index=2, negate=True)
        assert run.report.index == 2 and run.report.score == pytest.approx(scores[0, 2])
        run.guided_backprop()
        relus = [n.index for n in net.nodes if n.op == "Relu"]
        assert sorted(run.report.rule_nodes) == relus and run.report.layer == net.inputs[0]


def test_names_in_reports_are_the_network_s():
    """They last when the host's own strings are gone: here overwritten after the call."""
    c, net = gradcam._c, gradcam.Net(GARMENTS)
    conv = next(node for node in net.nodes if node.op == "Conv")
    with gradcam.Run(net) as run:
        run.set_input(None, IMAGE)
        for name in (conv.outputs[0], conv.name, net.inputs[0]):
            layer, output = (C.create_string_buffer(text.encode()) for text in (name, net.outputs[0]))
            target = c.sized(c.gc_target, output=C.cast(output, C.c_char_p))
            report = c.sized(c.gc_report)
            options = c.sized(c.gc_explain_options, layer=C.cast(layer, C.c_char_p), target=C.pointer(target),
                              report=C.pointer(report))
            heat_of = c.tensor_p()
            c.call("gradcam", run.handle, C.byref(options), C.byref(heat_of))
            c.lib.gc_tensor_unref(heat_of)
            layer[0] = output[0] = b"?"
            assert report.layer.decode() == (name if name in net.inputs else conv.outputs[0])
            assert report.output.decode() == net.outputs[0]


def test_into(expected):
    into = np.full(expected.shape, 9, np.float32)
    net = gradcam.Net(GARMENTS)
    assert heat(net, into=into) is into
    assert np.array_equal(into, expected)
    with pytest.raises(gradcam.GradcamError) as caught:
        heat(net, into=np.zeros((1, 2, 2), np.float32))
    assert caught.value.name == "GRADCAM_E_SHAPE"
    for wrong in (expected.astype(np.float64), np.zeros(expected.shape[::-1], np.float32).T):
        with pytest.raises(TypeError, match="into"):
            heat(net, into=wrong)


def test_option_names():
    net = gradcam.Net(GARMENTS)
    assert np.array_equal(heat(net, kind="class", index=1), heat(net, kind=gradcam.CLASS, index=1))
    assert not np.array_equal(heat(net, index=1), heat(net, index=2))
    for wrong in ({"pool": "median"}, {"grad": "none"}, {"rule": "lrp"}, {"resize": "cubic"}, {"kind": "box"}):
        with pytest.raises(ValueError, match="there are"):
            heat(net, **wrong)
    with pytest.raises(gradcam.GradcamError) as caught:
        heat(net, pool=17)
    assert caught.value.name == "GRADCAM_E_INVALID"
    with pytest.raises(TypeError):
        heat(net, colour="red")


def test_layers_refuse_what_has_no_place():
    with gradcam.Run(gradcam.Net(GARMENTS)) as run:
        run.set_input(None, IMAGE)
        run.gradcam()
        layer = run.report.layer
        for wrong in ({"layer": layer}, {"into": np.zeros((1, 1, 1), np.float32)}):
            with pytest.raises(TypeError):
                run.gradcam_layers([layer], **wrong)
        with pytest.raises(gradcam.GradcamError) as caught:
            run.gradcam_layers([layer, "nowhere"])
        assert caught.value.name == "GRADCAM_E_NOT_FOUND"
        with pytest.raises(gradcam.GradcamError):
            run.gradcam_layers([])


# ---- maps ----


@pytest.mark.parametrize("shape,size", [((3, 7, 5), (224, 160)), ((7, 5), (3, 9)), ((1, 1, 1), (4, 4)),
                                        ((2, 14, 14), (14, 14)), ((2, 3, 6, 5), (7, 11)), ((9, 5), (3, 600))])
@pytest.mark.parametrize("mode", ["bilinear", "align_corners", "nearest"])
def test_resize(shape, size, mode):
    maps = RNG.standard_normal(shape).astype(np.float32)
    t = torch.tensor(maps).double().reshape(-1, 1, *shape[-2:])
    options = {"mode": "nearest"} if mode == "nearest" else {"mode": "bilinear",
                                                             "align_corners": mode == "align_corners"}
    want = torch.nn.functional.interpolate(t, size=size, **options).reshape(*shape[:-2], *size).numpy()
    got = gradcam.resize(maps, size, mode)
    assert got.shape == want.shape and np.abs(got - want).max() <= 2e-6 * np.abs(want).max()


def test_normalize():
    maps = RNG.standard_normal((3, 4, 5)).astype(np.float32)
    maps[1] = 2.5
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    want = np.where(high > low, (maps - low) / np.where(high > low, high - low, 1), 0)
    kept = maps.copy()
    assert np.abs(gradcam.normalize(maps) - want).max() <= 1e-7
    assert np.array_equal(maps, kept)
    assert gradcam.normalize(maps, inplace=True) is maps and np.abs(maps - want).max() <= 1e-7
    with pytest.raises(TypeError):
        gradcam.normalize(maps.astype(np.float64), inplace=True)
    with pytest.raises(gradcam.GradcamError):
        gradcam.resize(np.zeros((1, 0, 3), np.float32), (2, 2))
    with pytest.raises(ValueError, match="there are"):
        gradcam.resize(maps, (2, 2), "cubic")


# ---- closing ----


def test_closed_objects_say_so():
    net = gradcam.Net(GARMENTS)
    run = gradcam.Run(net)
    run.close()
    run.close()
    for use in (run.forward, run.gradcam, lambda: run.value("y"), lambda: run.on_forward("y", print),
                lambda: run.watch("y"), lambda: run.set_rule("plain")):
        with pytest.raises(gradcam.GradcamError):
            use()
    net.close()
    with pytest.raises(gradcam.GradcamError):
        gradcam.Run(net)
    builder = gradcam.Builder()
    builder.close()
    with pytest.raises(gradcam.GradcamError):
        builder.output("y")


def test_the_net_may_go_first(expected):
    with gradcam.Net(GARMENTS) as net:
        run = gradcam.Run(net)
    run.set_input(None, IMAGE)
    assert np.array_equal(run.gradcam(), expected)
    run.close()


def test_errors_carry_everything():
    with gradcam.Run(gradcam.Net(GARMENTS)) as run:
        with pytest.raises(gradcam.GradcamError) as caught:
            run.value("nowhere")
    error = caught.value
    assert (error.status, error.name) == (gradcam._c.GRADCAM_E_NOT_FOUND, "GRADCAM_E_NOT_FOUND")
    assert "nowhere" in str(error) and error.node is None and error.offset == 0 and error.user_code == 0


def test_threads_of_python_share_a_network(expected):
    net, results = gradcam.Net(GARMENTS), [None] * 4

    def work(k):
        results[k] = heat(net)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(r, expected) for r in results)


def test_tensor_attribute_round_trip():
    """What numpy_helper and the binding call the same."""
    array = np.arange(4, dtype=np.int64)
    with gradcam.Builder() as b:
        b.node("Constant", [], ["y"], value=array)
        b.output("y")
        net = b.finish()
    with gradcam.Run(net) as run:
        run.forward()
        assert np.array_equal(run.value("y"), numpy_helper.to_array(numpy_helper.from_array(array)))
