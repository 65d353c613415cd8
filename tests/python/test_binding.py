# SPDX-License-Identifier: MIT
"""Every part of the Python binding once, against expected numbers or PyTorch."""

import gc
import io
import logging
import os
import pathlib
import sys
import threading

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

torch = pytest.importorskip("torch")
ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("GRADCAM_LIBRARY", str(ROOT / "build" / "libgradcam.so"))
sys.path.insert(0, str(ROOT / "bindings" / "python"))
import gradcam  # noqa: E402

GARMENTS = ROOT / "docs" / "demo" / "garments.onnx"
RNG = np.random.default_rng(5)
IMAGE = RNG.standard_normal((1, 3, 112, 112)).astype(np.float32)


def heat(net, **options):
    with gradcam.Run(net) as run:
        run.set_input(None, IMAGE)
        return run.gradcam(**options)


@pytest.fixture(scope="module")
def expected():
    return heat(gradcam.Net(GARMENTS))


# ---- contexts ----


def test_threads(expected):
    with gradcam.Context(threads=3) as context:
        assert np.array_equal(heat(gradcam.Net(GARMENTS, context)), expected)
    with pytest.raises(gradcam.GradcamError) as caught:
        gradcam.Context(threads=100000)
    assert caught.value.name == "GRADCAM_E_INVALID"
    with pytest.raises(TypeError):
        gradcam.Context(threads="2")


def test_kernels(expected):
    """Every set of kernels explains alike; a run may be exact."""
    names = gradcam.kernels()
    assert names[-1] == "plain"
    for name in names:
        with gradcam.Context(kernels=name) as context:
            np.testing.assert_allclose(heat(gradcam.Net(GARMENTS, context)), expected, rtol=1e-3, atol=1e-5)
    with pytest.raises(gradcam.GradcamError, match="plain") as caught:
        gradcam.Context(kernels="none such")
    assert caught.value.name == "GRADCAM_E_NOT_FOUND"
    with gradcam.Run(gradcam.Net(GARMENTS)) as run:
        run.set_input(None, IMAGE)
        run.set_exact()
        assert not np.array_equal(run.gradcam(), expected) or names == ["plain"]


def test_executor(expected):
    """A job system in Python, on threads of its own and in another order."""
    counts = []

    def parallel_for(task, count):
        counts.append(count)
        threads = [threading.Thread(target=lambda k=k: [task(i) for i in range(k, count, 2)]) for k in (1, 0)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert np.array_equal(heat(gradcam.Net(GARMENTS, gradcam.Context(executor=parallel_for))), expected)
    assert counts


def test_executor_that_fails():
    def refuse(_task, _count):
        raise KeyError("no workers")

    with pytest.raises(KeyError, match="no workers"):
        heat(gradcam.Net(GARMENTS, gradcam.Context(executor=refuse)))


class Heap:
    """An allocator that counts; `limit` calls succeed."""

    def __init__(self, limit=10**9):
        self.blocks, self.limit, self.most = {}, limit, 0

    def alloc(self, size, align):
        if self.limit == 0:
            return None
        self.limit -= 1
        block = np.empty(size + align, np.uint8)
        address = -(-block.ctypes.data // align) * align
        self.blocks[address] = (block, size, align)
        self.most = max(self.most, len(self.blocks))
        return address

    def release(self, address, size, align):
        assert self.blocks.pop(address)[1:] == (size, align)


def test_allocator(expected):
    heap = Heap()
    got = heat(gradcam.Net(GARMENTS, gradcam.Context(allocator=(heap.alloc, heap.release))))
    assert np.array_equal(got, expected)
    gc.collect()
    assert 0 < len(heap.blocks) < heap.most  # the map is still there
    del got
    gc.collect()
    assert not heap.blocks


@pytest.mark.parametrize("limit", [0, 1, 5, 50])
def test_no_memory(limit):
    heap = Heap(limit)
    with pytest.raises(gradcam.GradcamError) as caught:
        heat(gradcam.Net(GARMENTS, gradcam.Context(allocator=(heap.alloc, heap.release))))
    assert caught.value.name == "GRADCAM_E_NOMEM"
    del caught
    gc.collect()
    assert not heap.blocks


def test_loggers_are_called(caplog):
    """Whatever line the library logs arrives, at the level that was asked for."""
    lines = []
    context = gradcam.Context(logger=lambda level, line: lines.append((level, line)), level="info")
    logger, level = context._services[0], gradcam._c.GRADCAM_LOG_WARNING
    assert logger.max_level == gradcam._c.GRADCAM_LOG_INFO
    logger.log(None, level, "a line: ä".encode())
    assert lines == [(level, "a line: ä")]
    context = gradcam.Context(logger=logging.getLogger("gradcam.test"))
    assert context._services[0].max_level == level
    context._services[0].log(None, level, b"100 %")
    assert caplog.records[-1].getMessage() == "100 %" and caplog.records[-1].levelno == logging.WARNING
    with pytest.raises(ValueError, match="level"):
        gradcam.Context(logger=print, level="loud")


# ---- loading ----


def test_all_sources_give_the_same(expected):
    data = GARMENTS.read_bytes()
    for model in (str(GARMENTS), data, bytearray(data), memoryview(data), np.frombuffer(data, np.uint8),
                  io.BytesIO(data)):
        assert np.array_equal(heat(gradcam.Net(model)), expected)
    with open(GARMENTS, "rb") as file:
        assert np.array_equal(heat(gradcam.Net(file)), expected)


def test_load_errors(tmp_path):
    for make, name in ((lambda: gradcam.Net(tmp_path / "missing.onnx"), "GRADCAM_E_IO"),
                       (lambda: gradcam.Net(b"\x00garbage"), "GRADCAM_E_FORMAT"),
                       (lambda: gradcam.Net(GARMENTS, max_nodes=3), "GRADCAM_E_LIMIT"),
                       (lambda: gradcam.Net(GARMENTS, max_bytes=1000), "GRADCAM_E_LIMIT"),
                       (lambda: gradcam.Net(io.BytesIO(GARMENTS.read_bytes()), max_bytes=1000), "GRADCAM_E_LIMIT")):
        with pytest.raises(gradcam.GradcamError) as caught:
            make()
        assert caught.value.name == name and str(caught.value) and caught.value.status < 0

    class Broken(io.BytesIO):
        def read(self, *_):
            raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        gradcam.Net(Broken(b"12345678"))


def external_model():
    """y = x + w with w outside the model."""
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    outside = TensorProto(name="w", dims=w.shape, data_type=TensorProto.FLOAT,
                          data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "weights.bin"), ("offset", "16"), ("length", str(w.nbytes))):
        outside.external_data.add(key=key, value=value)
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g",
                              [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])], [outside])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString(), w


def test_external_weights():
    model, w = external_model()
    asked = []

    def read(location, offset, size):
        asked.append((location, offset, size))
        return w.tobytes()

    with gradcam.Run(gradcam.Net(model, read_external=read)) as run:
        run.set_input("x", np.ones((2, 3)))
        run.forward()
        assert np.array_equal(run.value("y"), w + 1)
    assert asked == [("weights.bin", 16, 24)]
    with pytest.raises(ValueError, match="3 bytes of 24"):
        gradcam.Net(model, read_external=lambda *_: b"abc")
    with pytest.raises(gradcam.GradcamError):
        gradcam.Net(model)


def test_queries():
    net, model = gradcam.Net(GARMENTS), onnx.load(GARMENTS)
    assert net.inputs == [v.name for v in model.graph.input] and net.outputs == [v.name for v in model.graph.output]
    nodes = net.nodes
    assert [n.index for n in nodes] == list(range(len(nodes)))
    known = {node.output[0]: node for node in model.graph.node}
    for node in nodes:
        assert net.producer(node.outputs[0]) == node.index
        assert node.op == known[node.outputs[0]].op_type and node.inputs == list(known[node.outputs[0]].input)
    assert net.producer("nowhere") is None and net.producer(net.inputs[0]) is None
    dtype, shape = net.input_spec(net.inputs[0])
    assert dtype == np.float32 and shape[1:] == (3, 112, 112)
    with pytest.raises(KeyError):
        net.input_spec("nowhere")
    floats = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT]
    assert net.parameter_count == sum(int(np.prod(t.dims)) for t in floats) > 0


def test_flops_and_layers():
    net, weight = built()
    with gradcam.Run(net) as run:
        conv = net.producer("c")
        with pytest.raises(gradcam.GradcamError, match="prepared"):
            run.node_flops(conv)
        run.set_input("x", np.ones((3, 2, 5, 8), np.float32))
        run.prepare()
        assert run.node_flops(conv) == 2 * 3 * 5 * 8 * weight.size
        assert run.node_flops(net.producer("r")) == 0
        with pytest.raises(gradcam.GradcamError):
            run.node_flops(99)
    with gradcam.Run(gradcam.Net(GARMENTS)) as run:
        run.set_input(None, IMAGE)
        layers = run.candidate_layers(index=1)
        run.gradcam(index=1)
        assert len(layers) > 1 and layers[0] == run.report.layer
        assert all(len(run.spec(name).shape) == 4 for name in layers)
        with pytest.raises(gradcam.GradcamError):
            run.candidate_layers(output="nowhere")


def test_limit_of_a_run():
    net = gradcam.Net(GARMENTS, max_run_bytes=100000)
    with pytest.raises(gradcam.GradcamError) as caught:
        heat(net)
    assert caught.value.name == "GRADCAM_E_LIMIT"


def test_weights_on_demand(tmp_path):
    data, want, path = GARMENTS.read_bytes(), heat(gradcam.Net(GARMENTS)), tmp_path / "net.onnx"
    path.write_bytes(data)
    with open(GARMENTS, "rb") as file:
        for source in (path, data, bytearray(data), file):
            np.testing.assert_array_equal(heat(gradcam.Net(source, on_demand=True)), want)
    net = gradcam.Net(path, on_demand=True)
    path.write_bytes(data[:1000])
    with pytest.raises(gradcam.GradcamError, match="changed") as caught:
        heat(net)
    assert caught.value.name == "GRADCAM_E_IO"
    with open(GARMENTS, "rb") as file:
        net = gradcam.Net(file, on_demand=True)
    with pytest.raises(ValueError, match="closed"):
        heat(net)


# ---- building ----


def built(opset=17, context=None, weight=None):
    weight = RNG.standard_normal((4, 2, 3, 3)).astype(np.float32) if weight is None else weight
    with gradcam.Builder(opset, context) as b:
        b.input("x", (-1, 2, None, 8))
        b.weight("w", weight)
        b.node("Conv", ["x", "w", None], ["c"], name="conv", pads=[1, 1, 1, 1], auto_pad="NOTSET", group=1)
        b.node("LeakyRelu", ["c"], ["r"], alpha=0.25)
        b.node("Constant", [], ["half"], value=np.array(0.5, np.float32))
        b.node("Mul", ["r", "half"], ["y"])
        b.output("y")
        return b.finish(), weight


def test_builder():
    net, weight = built()
    assert net.input_spec("x") == (np.float32, (-1, 2, -1, 8))
    assert [n.op for n in net.nodes if n.op != "Constant"] == ["Conv", "LeakyRelu", "Mul"]
    x = RNG.standard_normal((2, 2, 5, 8)).astype(np.float32)
    with gradcam.Run(net) as run:
        run.set_input("x", x)
        run.forward()
        want = torch.nn.functional.conv2d(torch.tensor(x).double(), torch.tensor(weight).double(), padding=1)
        want = torch.nn.functional.leaky_relu(want, 0.25).numpy() / 2
        assert np.abs(run.value("y") - want).max() <= 1e-6 * np.abs(want).max()
        assert run.spec("c") == (np.float32, (2, 4, 5, 8))
        run.watch("conv")  # a node's name means its first output
        run.forward()
        assert np.array_equal(run.value("conv"), run.value("c"))


def test_weights_are_lent():
    """Row-major float32 stays the host's memory; it lives as long as the network."""
    weight = np.zeros((4, 2, 3, 3), np.float32)
    net, _ = built(weight=weight)
    weight[:] = 1
    with gradcam.Run(net) as run:
        run.set_input("x", np.ones((1, 2, 8, 8), np.float32))
        run.forward()
        assert run.value("y")[0, 0, 4, 4] == 9.0
    net, _ = built(weight=np.ones((4, 2, 3, 3), np.float32))
    gc.collect()
    with gradcam.Run(net) as run:
        run.set_input("x", np.ones((1, 2, 8, 8), np.float32))
        run.forward()
        assert run.value("y")[0, 0, 4, 4] == 9.0


def test_builder_mistakes():
    b = gradcam.Builder()
    with pytest.raises(gradcam.GradcamError, match="nowhere"):
        b.node("Relu", ["nowhere"], ["y"])
        b.output("y")
        b.finish()
    with pytest.raises(gradcam.GradcamError) as caught:
        gradcam.Builder(opset=5)
    assert caught.value.name == "GRADCAM_E_INVALID"
    with pytest.raises(ValueError, match="dimensions"):
        b.input("x", (1,) * 9)
    with pytest.raises(TypeError, match="complex64"):
        b.input("x", (1,), np.complex64)


# ---- custom operators ----


class Softshrink:
    """sign(x) max(|x| - lambda, 0), with the attribute of every kind read back."""

    def __init__(self):
        self.seen = {}

    def infer(self, call):
        self.types = call.input_types
        self.data = call.inputs
        return call.input_types[:1]

    def forward(self, call):
        for name in ("lambd", "count", "word", "many", "parts", "table", "words", "missing"):
            self.seen[name] = call.attr(name, "absent")
        (x, _), (y,) = call.inputs, call.outputs
        y[...] = np.sign(x) * np.maximum(np.abs(x) - call.attr("lambd"), 0)

    def backward(self, call):
        x, (grad_x, grad_k) = call.inputs[0], call.grad_inputs
        assert grad_k is None
        grad_x[...] = call.grad_outputs[0] * (np.abs(x) > call.attr("lambd"))


def shrinking(context, **attributes):
    with gradcam.Builder(17, context) as b:
        b.input("x", (-1, 5))
        b.weight("k", np.array([1, 2, 3], np.int64))
        b.node("Softshrink", ["x", "k"], ["y"], lambd=0.5, **attributes)
        b.output("y")
        return b.finish()


def test_custom_operator():
    op, context = Softshrink(), gradcam.Context()
    context.register("Softshrink", op.forward, op.infer, op.backward)
    net = shrinking(context, count=7, word="w", many=[1, -2], parts=[0.5, 2.0], table=np.eye(2, dtype=np.float32),
                    words=["a", "b c"])
    context.close()  # the network keeps what it needs
    x = RNG.standard_normal((3, 5)).astype(np.float32)
    with gradcam.Run(net) as run:
        run.set_input("x", x)
        run.watch("x")
        run.forward()
        run.backward("y", np.ones((3, 5)))
        t = torch.tensor(x, requires_grad=True)
        y = torch.nn.functional.softshrink(t, 0.5)
        y.sum().backward()
        assert np.abs(run.value("y") - y.detach().numpy()).max() <= 1e-7
        assert np.array_equal(run.gradient("x"), t.grad.numpy())
    assert op.types == [(np.float32, (3, 5)), (np.int64, (3,))]
    assert op.data[0] is None and list(op.data[1]) == [1, 2, 3]  # only constants have data then
    table = op.seen.pop("table")
    assert np.array_equal(table, np.eye(2))
    assert op.seen == {"lambd": 0.5, "count": 7, "word": "w", "many": [1, -2], "parts": [0.5, 2.0],
                       "words": ["a", "b c"], "missing": "absent"}


def one_node(context, op, domain="", outputs=("y",)):
    graph = helper.make_graph([helper.make_node(op, ["x"], list(outputs), domain=domain, name="mine")], "g",
                              [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return gradcam.Net(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString(), context)


def forward(net, x=(-1, 2, -3, 4)):
    with gradcam.Run(net) as run:
        run.set_input("x", np.array(x, np.float32))
        run.watch("x")
        run.forward()
        y = run.value("y")
        run.backward("y", np.ones(y.shape))
        return y, run.gradient("x")


def test_operator_of_a_domain():
    context = gradcam.Context()
    with pytest.raises(gradcam.GradcamError, match="Thrice"):
        one_node(context, "Thrice", "com.example")

    def thrice(call):
        np.multiply(call.inputs[0], 3, out=call.outputs[0])

    def back(call):
        np.multiply(call.grad_outputs[0], 3, out=call.grad_inputs[0])

    context.register("Thrice", thrice, backward=back, domain="com.example")  # infer: as the first input
    y, grad = forward(one_node(context, "Thrice", "com.example"))
    assert list(y) == [-3, 6, -9, 12] and list(grad) == [3, 3, 3, 3]


def test_operator_instead_of_a_built_in():
    context = gradcam.Context()
    net = one_node(context, "Relu")
    context.register("Relu", lambda call: np.copyto(call.outputs[0], 7), backward=lambda call: None, activation=True)
    assert list(forward(net)[0]) == [0, 2, 0, 4]  # made before
    assert list(forward(one_node(context, "Relu"))[0]) == [7, 7, 7, 7]


def test_activation_and_stops():
    """The rules of guided backpropagation apply to an operator that says it is an activation."""

    def copy(call):
        np.copyto(call.outputs[0], call.inputs[0])

    def back(call):
        np.copyto(call.grad_inputs[0], call.grad_outputs[0])

    context = gradcam.Context()
    context.register("Mine", copy, backward=back, activation=True)
    context.register("Wall", copy, stops=True)
    context.register("Hole", copy)
    with gradcam.Run(one_node(context, "Mine")) as run:
        run.set_input("x", np.ones(4, np.float32))
        run.watch("x")
        run.forward()
        run.set_rule("deconvnet")
        run.backward("y", [1, -1, 2, -2])
        assert list(run.gradient("x")) == [1, 0, 2, 0] and run.rule_nodes == [0]
        run.set_rule("plain")
        run.backward("y", [1, -1, 2, -2])
        assert list(run.gradient("x")) == [1, -1, 2, -2] and run.rule_nodes == []
    for op, name in (("Wall", "GRADCAM_E_NO_GRADIENT"), ("Hole", "GRADCAM_E_NO_GRADIENT")):
        with pytest.raises(gradcam.GradcamError) as caught:
            forward(one_node(context, op))
        assert caught.value.name == name


def test_operators_that_fail():
    def fail(_call):
        raise ZeroDivisionError("mine")

    def copy(call):
        np.copyto(call.outputs[0], call.inputs[0])

    for functions in ({"forward": fail}, {"forward": copy, "backward": fail}):
        context = gradcam.Context()
        context.register("Bad", **functions)
        with pytest.raises(ZeroDivisionError, match="mine"):
            forward(one_node(context, "Bad"))
    # A node that cannot be planned spoils only what needs it: the library remembers the text.
    context = gradcam.Context()
    context.register("Bad", copy, infer=fail)
    with pytest.raises(gradcam.GradcamError, match="ZeroDivisionError: mine"):
        forward(one_node(context, "Bad"))
    context = gradcam.Context()
    context.register("Says", lambda call: call.fail("not on Sundays", gradcam._c.GRADCAM_E_UNSUPPORTED))
    with pytest.raises(gradcam.GradcamError, match="not on Sundays") as caught:
        forward(one_node(context, "Says"))
    assert caught.value.name == "GRADCAM_E_UNSUPPORTED" and "mine" in str(caught.value)
    context = gradcam.Context()
    context.register("Odd", copy, infer=lambda call: [(np.float64, (4,))])
    with pytest.raises(gradcam.GradcamError, match="float64"):
        forward(one_node(context, "Odd"))
    with pytest.raises(gradcam.GradcamError):
        context.register("", copy)
