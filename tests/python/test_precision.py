# SPDX-License-Identifier: MIT
"""bfloat16 runs against products of rounded factors in double precision: by the plain kernels everywhere, and by the
best ones where they have bfloat16."""

import pathlib
import sys

import numpy as np
import onnx
import pytest
import test_models
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bindings" / "python"))
import gradcam  # noqa: E402

U = 2.0**-24


def rounded(x):
    """The nearest bfloat16, ties to even, as float64."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    bits = (bits + np.uint32(0x7fff) + (bits >> np.uint32(16) & np.uint32(1))) & np.uint32(0xffff0000)
    return bits.view(np.float32).astype(np.float64)


@pytest.fixture(params=["plain", None])
def context(request):
    return gradcam.Context(kernels=request.param, threads=2)


def run_of(context, op, x, weights, shape, **attributes):
    names = ["x"] + [f"w{i}" for i in range(len(weights))]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attributes)], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(w, name) for name, w in zip(names[1:], weights)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    run = gradcam.Run(gradcam.Net(model.SerializeToString(), context))
    run.set_input("x", x)
    run.watch("x", gradcam.WATCH_GRAD)
    try:
        run.set_precision("bf16")
    except gradcam.GradcamError as error:
        assert error.name == "GRADCAM_E_UNSUPPORTED"
        assert run.precision[0] == "f32"
        pytest.skip("no bfloat16 here")
    assert run.precision[0] == "bf16"
    return run


def near(got, want, size, n):
    return np.all(np.abs(got - want) <= n * U / (1 - n * U) * size)


@pytest.mark.parametrize("rows", [1, 3, 4, 40])
@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("k, n", [(70, 33), (31, 64), (128, 1100)])
def test_gemm(context, rows, transposed, k, n):
    rng = np.random.default_rng(rows + k)
    x = rng.standard_normal((rows, k), np.float32)
    w = rng.standard_normal((k, n), np.float32)
    bias = rng.standard_normal(n, np.float32)
    run = run_of(context, "Gemm", x, [w.T.copy() if transposed else w, bias], (rows, n), transB=transposed)
    run.forward()
    # A few rows stay float32: what is read from far are the weights.
    a, b = (x.astype(np.float64) if rows <= 3 else rounded(x)), rounded(w)
    assert near(run.value("y"), a @ b + bias, np.abs(a) @ np.abs(b) + np.abs(bias), k + 2)
    assert not near(run.value("y"), x.astype(np.float64) @ w + bias, np.abs(a) @ np.abs(b) + np.abs(bias), k + 2)
    seed = rng.standard_normal((rows, n), np.float32)
    run.backward("y", seed)
    seed = seed.astype(np.float64) if rows <= 3 else rounded(seed)
    assert near(run.gradient("x"), seed @ b.T, np.abs(seed) @ np.abs(b.T), n + 2)


def test_matmul(context):
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((2, 9, 45), np.float32), rng.standard_normal((45, 50), np.float32)
    run = run_of(context, "MatMul", x, [w], (2, 9, 50))
    run.forward()
    a, b = rounded(x), rounded(w)
    assert near(run.value("y"), a @ b, np.abs(a) @ np.abs(b), 46)


def test_conv(context):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((2, 12, 17, 13), np.float32), rng.standard_normal((40, 6, 3, 5), np.float32)
    options = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}
    a, b = torch.from_numpy(rounded(x)), torch.from_numpy(rounded(w))
    want = torch.nn.functional.conv2d(a, b, **options).numpy()
    size = torch.nn.functional.conv2d(a.abs(), b.abs(), **options).numpy()
    run = run_of(context, "Conv", x, [w], want.shape, strides=[2, 1], pads=[1, 2, 1, 2], dilations=[1, 2], group=2)
    run.forward()
    assert near(run.value("y"), want, size, 6 * 15 + 1)


# ---- values that are stored as bfloat16 ----


def network(context, chain):
    """Nodes (op, weights' shapes, attributes, inputs by number of the value) over an image of 8 channels."""
    rng = np.random.default_rng(3)
    nodes, weights = [], []
    for i, (op, shapes, attributes, inputs) in enumerate(chain):
        names = [f"v{k}" for k in inputs]
        for shape in shapes:
            names.append(f"w{len(weights)}")
            weights.append(numpy_helper.from_array(rng.standard_normal(shape, np.float32), names[-1]))
        nodes.append(helper.make_node(op, names, [f"v{i + 1}"], **attributes))
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("v0", TensorProto.FLOAT, (2, 8, 20, 18))],
                              [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = rng.standard_normal((2, 8, 20, 18), np.float32)
    return gradcam.Net(model.SerializeToString(), context), x


def results(net, x, watched):
    with gradcam.Run(net) as run:
        run.set_input("v0", x)
        for name in watched:
            run.watch(name)
        try:
            run.set_precision("bf16")
        except gradcam.GradcamError:
            pytest.skip("no bfloat16 here")
        run.forward()
        seen = [run.value(name) for name in watched]
        specs = [run.spec(f"v{i}").dtype for i in range(len(net.nodes))]
        return run.value(net.outputs[0]), seen, specs, run.arena_bytes


PAD = {"pads": [1, 1, 1, 1]}
CHAINS = {
    "convolutions": [("Conv", [(24, 8, 3, 3), (24,)], PAD, [0]), ("Relu", [], {}, [1]),
                     ("Conv", [(40, 24, 1, 1)], {}, [2]), ("Conv", [(33, 40, 3, 3)], {"strides": [2, 2]}, [3]),
                     ("Conv", [(6, 33, 3, 3)], PAD, [4])],
    "pools": [("Conv", [(24, 8, 3, 3)], PAD, [0]), ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2]} | PAD, [1]),
              ("Conv", [(35, 24, 2, 2)], {}, [2]), ("MaxPool", [], {"kernel_shape": [2, 2]}, [3]),
              ("Conv", [(5, 35, 1, 1)], {}, [4])],
    "parts": [("Conv", [(16, 8, 1, 1)], {}, [0]), ("Conv", [(24, 16, 3, 3)], PAD, [1]),
              ("Conv", [(20, 16, 1, 1)], {}, [1]), ("Concat", [], {"axis": 1}, [2, 3]),
              ("Conv", [(9, 44, 3, 3)], PAD, [4])],
}


@pytest.mark.parametrize("name", CHAINS)
def test_stored_narrow(context, name):
    """Convolutions round their inputs, and maxima and copies keep the order of what is rounded: whether values between
    them are stored as bfloat16 or, because somebody watches them, as float32 must not be seen in a bit."""
    net, x = network(context, CHAINS[name])
    names = [f"v{i + 1}" for i in range(len(CHAINS[name]))]
    plain, _, specs, _ = results(net, x, [])
    wide, seen, _, _ = results(net, x, names[:-1])
    assert np.array_equal(plain, wide)
    assert all(value.dtype == np.float32 for value in seen) and all(dtype == np.float32 for dtype in specs)


def test_stored_narrow_takes_less(context):
    net, x = network(context, [("Conv", [(64, 8 if i == 0 else 64, 3, 3)], PAD, [i]) for i in range(4)])
    _, _, _, narrow = results(net, x, [])
    _, _, _, wide = results(net, x, ["v1", "v2", "v3"])
    assert narrow < wide * 0.75


def test_residual_and_depthwise(context):
    """What is stored narrow is off by one rounding of it."""
    torch = pytest.importorskip("torch")
    chain = [("Conv", [(16, 8, 1, 1)], {}, [0]), ("Conv", [(16, 1, 3, 3)], {"group": 16} | PAD, [1]),
             ("Conv", [(16, 16, 1, 1)], {}, [2]), ("Add", [], {}, [3, 1]), ("Conv", [(4, 16, 1, 1)], {}, [4])]
    net, x = network(context, chain)
    got, _, _, _ = results(net, x, [])
    rng = np.random.default_rng(3)
    w = [torch.from_numpy(rng.standard_normal(chain[i][1][0], np.float32).astype(np.float64)) for i in (0, 1, 2, 4)]
    conv = torch.nn.functional.conv2d
    first = conv(torch.from_numpy(x.astype(np.float64)), w[0])
    sums = conv(conv(first, w[1], padding=1, groups=16), w[2]) + first
    size = conv(conv(conv(conv(torch.from_numpy(np.abs(x).astype(np.float64)), w[0].abs()), w[1].abs(), padding=1, groups=16),
                     w[2].abs()) + first.abs(), w[3].abs()).numpy()
    # Four products and two stored values: at most ten roundings of 2^-8 in a row.
    assert np.all(np.abs(got - conv(sums, w[3]).numpy()) <= 10 * 2.0**-8 * size)


def test_norm_and_pools(context):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    chain = [("Conv", [(24, 8, 3, 3)], PAD, [0]), ("MaxPool", [], {"kernel_shape": [2, 2]}, [1]),
             ("BatchNormalization", [(24,), (24,), (24,), (24,)], {"epsilon": 5.0}, [2]), ("Relu", [], {}, [3]),
             ("AveragePool", [], {"kernel_shape": [3, 3], "strides": [2, 2]} | PAD, [4]), ("Conv", [(7, 24, 1, 1)], {}, [5])]
    net, x = network(context, chain)
    got, _, _, _ = results(net, x, [])
    rng = np.random.default_rng(3)
    w = [torch.from_numpy(rng.standard_normal(shape, np.float32).astype(np.float64)) for _, shapes, _, _ in chain
         for shape in shapes]
    factor = w[1] / torch.sqrt(w[4] + 5.0)

    def forward(image, first, scale, shift, last):
        y = functional.max_pool2d(functional.conv2d(image, first, padding=1), 2, 1)
        y = torch.relu(y * scale[:, None, None] + shift[:, None, None])
        return functional.conv2d(functional.avg_pool2d(y, 3, 2, padding=1, count_include_pad=False), last).numpy()

    image = torch.from_numpy(x.astype(np.float64))
    want = forward(image, w[0], factor, w[2] - w[3] * factor, w[5])
    size = forward(image.abs(), w[0].abs(), factor.abs(), w[2].abs() + (w[3] * factor).abs(), w[5].abs())
    # Two products and three stored values: at most eight roundings of 2^-8 in a row.
    assert np.all(np.abs(got - want) <= 8 * 2.0**-8 * size)


# ---- trained networks: what docs/performance.md says ----


@pytest.mark.skipif(not (test_models.SHARED / "models").is_dir(), reason="the networks are not beside the project")
@pytest.mark.parametrize("model", test_models.POOLING)
def test_trained_networks(model):
    """The class and the map of float32; the best kernels that have bfloat16, or the plain ones."""
    x = np.ascontiguousarray(test_models.POOLING[model](), np.float32)
    probe = gradcam.Run(gradcam.Net(test_models.SHARED / "models" / f"{model}.onnx"))
    try:
        probe.set_precision("bf16")
        kernels = None
    except gradcam.GradcamError:
        kernels = "plain"
    net = gradcam.Net(test_models.SHARED / "models" / f"{model}.onnx", gradcam.Context(kernels=kernels))
    outputs, maps = [], []
    for precision in ("f32", "bf16"):
        with gradcam.Run(net) as run:
            run.set_input(None, x)
            run.set_precision(precision)
            maps.append(run.gradcam())
            outputs.append(run.value(net.outputs[0]))
    exact, half = outputs
    assert exact.argmax() == half.argmax() and not np.array_equal(exact, half)
    assert np.abs(half - exact).max() <= 0.1 * np.abs(exact).max()
    assert np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1] > 0.995
