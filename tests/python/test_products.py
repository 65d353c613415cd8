# SPDX-License-Identifier: MIT
"""Products with constant weights, which are packed once for each direction, against PyTorch in double."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from one_op import gradcam  # noqa: E402

U = 2.0 ** -24


def model(nodes, weights, rank):
    made = [helper.make_node(op, inputs, [out], **attributes) for op, inputs, out, attributes in nodes]
    constants = [numpy_helper.from_array(w, name) for name, w in weights.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None] * rank)
    graph = helper.make_graph(made, "g", [x], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()


def both_ways(onnx_model, x, seed, threads=1):
    with gradcam.Run(gradcam.Net(onnx_model, gradcam.Context(threads=threads))) as run:
        run.set_input("x", x)
        run.watch("x", gradcam.WATCH_GRAD)
        run.forward()
        y = run.value("y")
        run.backward("y", seed)
        first = run.gradient("x")
        run.backward("y", seed)  # what the first pass has left must not show
        assert np.array_equal(run.gradient("x"), first)
        return y, first


def check(onnx_model, x, then, sums):
    """`then` in double; each result is a sum of `sums` terms, none larger than the largest of them."""
    tx = torch.from_numpy(x).double().requires_grad_()
    y = then(tx)
    seed = np.random.default_rng(3).normal(size=tuple(y.shape)).astype(np.float32)
    want = torch.autograd.grad(y, tx, torch.from_numpy(seed).double())[0].numpy()
    got, gradient = both_ways(onnx_model, x, seed)
    for a, b in ((got, y.detach().numpy()), (gradient, want)):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= sums * U * 4 * np.abs(b).max()
    for a, b in zip(both_ways(onnx_model, x, seed, 2), (got, gradient)):
        assert np.array_equal(a, b)


# 4 rows are packed, 3 are not; 1024 columns lie badly in the cache and are copied in slices.
SHAPES = [((4,), 33, 18), ((3,), 33, 18), ((2, 29), 48, 96), ((2, 3, 5), 7, 1), ((250,), 1024, 128), ((17,), 64, 1600)]


@pytest.mark.parametrize(("lead", "k", "n"), SHAPES)
@pytest.mark.parametrize("bias", [False, True])
def test_matmul(lead, k, n, bias):
    rng = np.random.default_rng(1)
    x, w, b = (rng.normal(size=s).astype(np.float32) for s in ((*lead, k), (k, n), (n,)))
    nodes = [("MatMul", ["x", "w"], "h", {}), ("Add", ["h", "b"], "y", {})] if bias else [("MatMul", ["x", "w"], "y",
            {})]
    tw, tb = (torch.from_numpy(a).double() for a in (w, b))
    check(model(nodes, {"w": w, "b": b}, x.ndim), x, lambda t: t @ tw + (tb if bias else 0), k + n)


@pytest.mark.parametrize("alpha", [1.0, 0.75])
@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_gemm(trans_a, trans_b, alpha):
    rng = np.random.default_rng(2)
    m, k, n = 19, 40, 50
    x = rng.normal(size=(k, m) if trans_a else (m, k)).astype(np.float32)
    w = rng.normal(size=(n, k) if trans_b else (k, n)).astype(np.float32)
    b = rng.normal(size=n).astype(np.float32)
    nodes = [("Gemm", ["x", "w", "b"], "y", {"transA": trans_a, "transB": trans_b, "alpha": alpha})]
    tw, tb = torch.from_numpy(w.T if trans_b else w).double(), torch.from_numpy(b).double()
    check(model(nodes, {"w": w, "b": b}, 2), x, lambda t: alpha * ((t.T if trans_a else t) @ tw) + tb, k + n)


def test_sums_of_gradients():
    """Three products and an addition read one value: each adds its part of the gradient to the others'."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(2, 9, 32)).astype(np.float32)
    w = {name: rng.normal(size=(32, 32)).astype(np.float32) for name in "qkv"}
    nodes = [*(("MatMul", ["r", name], f"m{name}", {}) for name in "qkv"),
             ("Add", ["mq", "mk"], "a", {}), ("Add", ["a", "mv"], "b", {}), ("Add", ["b", "r"], "y", {})]
    total = sum(torch.from_numpy(a).double() for a in w.values())
    check(model([("Relu", ["x"], "r", {}), *nodes], w, 3), x, lambda t: torch.relu(t) @ total + torch.relu(t), 4 * 32)


@pytest.mark.parametrize("other", ["r", "q"])
def test_two_values(other):
    """Each is needed for the other's gradient, after its place could have been used again; also a matrix with itself."""
    x = np.random.default_rng(5).normal(size=(3, 20, 20)).astype(np.float32) / 4
    one = np.ones(1, np.float32)
    nodes = [("Add", ["x", "x"], "r", {}), ("Add", ["x", "one"], "q", {}), ("MatMul", ["r", other], "s", {}),
             ("MatMul", ["s", "s"], "t", {}), ("Add", ["t", "s"], "y", {})]

    def double(t):
        s = 2 * t @ (2 * t if other == "r" else t + 1)
        return s @ s + s
    check(model(nodes, {"one": one}, 3), x, double, 400)


# A patch embedding and a residual product as exporters write them: reshaped and transposed on the way.
TOKENS = [("Conv", ["x", "wc"], "c", {"strides": [2, 2]}), ("Reshape", ["c", "s1"], "p", {}),
          ("Transpose", ["p"], "t", {"perm": [0, 2, 1]}), ("Transpose", ["t"], "l", {"perm": [1, 0, 2]}),
          ("Reshape", ["l", "s2"], "f", {}), ("Gemm", ["f", "w"], "g", {}), ("Reshape", ["g", "s3"], "u", {}),
          ("Transpose", ["u"], "v", {"perm": [1, 0, 2]}), ("Add", ["t", "v"], "a", {}), ("Relu", ["a"], "y", {})]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("seen", [None, "p", "t", "l", "g", "u", "v", "a"])
def test_tokens(batch, seen):
    rng = np.random.default_rng(6)
    n, side = 24, 4
    x = rng.normal(size=(batch, 3, 2 * side, 2 * side)).astype(np.float32)
    wc, w = rng.normal(size=(n, 3, 2, 2)).astype(np.float32), rng.normal(size=(n, n)).astype(np.float32)
    ints = {"s1": [batch, n, -1], "s2": [-1, n], "s3": [-1, batch, n]}
    weights = {"wc": wc, "w": w, **{name: np.array(a, np.int64) for name, a in ints.items()}}
    twc, tw = torch.from_numpy(wc).double(), torch.from_numpy(w).double()
    values = {}

    def double(x):
        values["p"] = torch.nn.functional.conv2d(x, twc, stride=2).reshape(batch, n, -1)
        values["t"] = values["p"].permute(0, 2, 1)
        values["l"] = values["t"].permute(1, 0, 2)
        values["g"] = values["l"].reshape(-1, n) @ tw
        values["u"] = values["g"].reshape(-1, batch, n)
        values["v"] = values["u"].permute(1, 0, 2)
        values["a"] = values["t"] + values["v"]
        return torch.relu(values["a"])
    onnx_model = model(TOKENS, weights, 4)
    check(onnx_model, x, double, 40)
    with gradcam.Run(gradcam.Net(onnx_model)) as run:  # no gradient: more is done at once
        run.set_input("x", x)
        if seen is not None:
            run.watch(seen, gradcam.WATCH_VALUE)
        run.forward()
        want = double(torch.from_numpy(x).double())
        for got, b in [(run.value("y"), want)] + ([(run.value(seen), values[seen])] if seen else []):
            assert np.abs(got - b.numpy()).max() <= 40 * U * 4 * b.abs().max().item()


@pytest.mark.parametrize("live", [[], [0], [6], [2, 4], [0, 6]])
@pytest.mark.parametrize("bad", [False, True])
def test_rows_without_a_gradient(live, bad):
    """Only some rows of the seed are not zero: in a product with constants, in batches of two values, in a Gemm; NaN
    is not nothing."""
    rng = np.random.default_rng(10)
    x = rng.normal(size=(2, 3, 7, 16)).astype(np.float32)
    w, v = rng.normal(size=(16, 16)).astype(np.float32), rng.normal(size=(16, 16)).astype(np.float32)
    nodes = [("MatMul", ["x", "w"], "a", {}), ("Transpose", ["x"], "t", {"perm": [0, 1, 3, 2]}),
             ("MatMul", ["a", "t"], "s", {}), ("Softmax", ["s"], "p", {}), ("MatMul", ["p", "x"], "o", {}),
             ("MatMul", ["o", "v"], "y", {})]
    seed = np.zeros(x.shape, np.float32)
    seed[:, 1:, live] = rng.normal(size=(2, 2, len(live), 16))
    tx = torch.from_numpy(x).double().requires_grad_()
    a = tx @ torch.from_numpy(w).double()
    y = torch.softmax(a @ tx.transpose(2, 3), -1) @ tx @ torch.from_numpy(v).double()
    want = torch.autograd.grad(y, tx, torch.from_numpy(seed).double())[0].numpy()
    onnx_model = model(nodes, {"w": w, "v": v}, 4)
    if bad:
        seed[0, 0, 3, 5] = np.nan
    for threads in (1, 2):
        _, got = both_ways(onnx_model, x, seed, threads) if not bad else (None, None)
        if bad:
            with gradcam.Run(gradcam.Net(onnx_model, gradcam.Context(threads=threads))) as run:
                run.set_input("x", x)
                run.watch("x", gradcam.WATCH_GRAD)
                run.forward()
                run.backward("y", seed)
                got = run.gradient("x")
            assert np.isnan(got[0, 0]).all() and not np.isnan(got[1]).any()
        else:
            assert np.abs(got - want).max() <= 64 * U * 4 * max(np.abs(want).max(), 1e-3)
