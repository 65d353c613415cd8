# SPDX-License-Identifier: MIT
"""bfloat16 runs against products of rounded factors in double precision: by the plain kernels everywhere, and by the
best ones where they have bfloat16."""

import pathlib
import sys

import numpy as np
import onnx
import pytest
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
