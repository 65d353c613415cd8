# SPDX-License-Identifier: MIT
"""Attention as exporters write it, product by product: done at once where nobody looks, and the same numbers where
somebody does."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from one_op import gradcam  # noqa: E402

B, T, H, D = 2, 50, 3, 8
C = H * D
HEADS = [B, T, H, D]


def packed(way):
    """Nodes from x [B, T, 3 C] to q, k, v [B, T, H, D]."""
    if way == "split":
        return [("Split", ["x"], ["a", "b", "c"], {"axis": 2, "num_outputs": 3}),
                *(("Reshape", [i, "heads"], [o], {}) for i, o in zip("abc", "qkv"))]
    if way == "gather":  # as torchvision's MultiheadAttention
        return [("Reshape", ["x", "thirds"], ["x3"], {}), ("Unsqueeze", ["x3", "zero"], ["xu"], {}),
                ("Transpose", ["xu"], ["xt"], {"perm": [3, 1, 2, 0, 4]}), ("Squeeze", ["xt", "last"], ["xs"], {}),
                *(("Gather", ["xs", i], [f"g{i}"], {"axis": 0}) for i in ("i0", "i1", "i2")),
                *(("Reshape", [f"g{i}", "heads"], [o], {}) for i, o in zip(("i0", "i1", "i2"), "qkv"))]
    return [("Reshape", ["x", "joint"], ["x5"], {}), ("Transpose", ["x5"], ["xt"], {"perm": [2, 0, 1, 3, 4]}),
            ("Split", ["xt"], ["a", "b", "c"], {"axis": 0, "num_outputs": 3}),
            *(("Squeeze", [i, "zero"], [o], {}) for i, o in zip("abc", "qkv"))]


def scaled(way):
    if way == "both":  # as PyTorch's scaled_dot_product_attention
        return [("Mul", ["qh", "root"], ["qs"], {}), ("Mul", ["kt", "root"], ["ks"], {}),
                ("MatMul", ["qs", "ks"], ["s"], {})]
    if way == "after":
        return [("MatMul", ["qh", "kt"], ["s0"], {}), ("Div", ["s0", "eight"], ["s"], {})]
    return [("MatMul", ["qh", "kt"], ["s"], {})]


def graph(split="split", scale="after", mask=None, end="transpose"):
    nodes = packed(split)
    nodes += [("Transpose", ["q"], ["qh"], {"perm": [0, 2, 1, 3]}), ("Transpose", ["k"], ["kt"], {"perm": [0, 2, 3,
            1]}), ("Transpose", ["v"], ["vh"], {"perm": [0, 2, 1, 3]}), *scaled(scale)]
    nodes += [("Add", ["s", "mask"] if mask != "left" else ["mask", "s"], ["m"], {})] if mask else []
    nodes += [("Softmax", ["m" if mask else "s"], ["p"], {"axis": -1}), ("MatMul", ["p", "vh"], ["o"], {})]
    if end == "transpose":
        nodes += [("Transpose", ["o"], ["ot"], {"perm": [0, 2, 1, 3]}), ("Reshape", ["ot", "flat"], ["y"], {})]
    elif end == "twice":
        nodes += [("Add", ["o", "vh"], ["y"], {})]
    else:
        nodes += [("Identity", ["o"], ["y"], {})]
    return nodes


def masks(kind):
    rng = np.random.default_rng(9)
    shape = {"left": (T, T), "keys": (B, 1, 1, T), "heads": (1, H, T, T), "nothing": (1, 1, T, T)}[kind]
    m = rng.normal(size=shape).astype(np.float32)
    m[..., rng.random(T) < 0.3] = -np.inf
    if kind == "nothing":
        m[..., 4, :] = -np.inf
    return m


def model(nodes, mask):
    ints = {"heads": HEADS, "thirds": [B, T, 3, C], "joint": [B, T, 3, H, D], "flat": [B, T, C], "zero": [0],
            "last": [3], "i0": 0, "i1": 1, "i2": -1}
    w = {**{name: np.array(a, np.int64) for name, a in ints.items()}, "root": np.float32(D ** -0.25),
         "eight": np.array([D ** 0.5], np.float32), **({"mask": mask} if mask is not None else {})}
    made = [helper.make_node(op, i, o, **a) for op, i, o, a in nodes]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [B, T, 3 * C])
    graph = helper.make_graph(made, "g", [x], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
                              [numpy_helper.from_array(np.asarray(a), n) for n, a in w.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()


def double(x, split, scale, mask, end):
    q, k, v = (a.reshape(HEADS).transpose(1, 2) for a in x.chunk(3, -1))
    s = q @ k.transpose(2, 3) / (1.0 if scale is None else D ** 0.5)
    p = torch.softmax(s if mask is None else s + torch.from_numpy(mask).double(), -1)
    o = p @ v
    return {"qh": q, "p": p, "vh": v, "o": o, "ot": o.transpose(1, 2),
            "y": o.transpose(1, 2).reshape(B, T, C) if end == "transpose" else o + v if end == "twice" else o}


CASES = [{"split": "split"}, {"split": "gather"}, {"split": "joint"}, {"scale": "both"}, {"scale": None},
         {"mask": "left"}, {"mask": "keys"}, {"mask": "heads", "scale": "both"}, {"mask": "nothing"}, {"end": "twice"},
         {"end": "plain"}]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nodes(case):
    case = {"split": "split", "scale": "after", "mask": None, "end": "transpose", **case}
    mask = masks(case["mask"]) if case["mask"] else None
    x = np.random.default_rng(8).normal(size=(B, T, 3 * C)).astype(np.float32)
    onnx_model = model(graph(**case), mask)
    tx = torch.from_numpy(x).double().requires_grad_()
    want = double(tx, **{**case, "mask": mask})

    def close(got, b):
        b = b.detach().numpy()
        assert got.shape == b.shape and (np.isnan(got) == np.isnan(b)).all()
        assert np.abs(np.nan_to_num(got - b)).max() < 3e-6
    used = {}
    for seen in (None, "qh", "p", "vh", "o", "ot"):
        if seen == "ot" and case["end"] != "transpose":
            continue
        for threads in (1, 2):
            with gradcam.Run(gradcam.Net(onnx_model, gradcam.Context(threads=threads))) as run:
                run.set_input("x", x)
                if seen:
                    run.watch(seen, gradcam.WATCH_VALUE)
                run.forward()
                close(run.value("y"), want["y"])
                if seen:
                    close(run.value(seen), want[seen])
                used[seen] = run.arena_bytes
    assert used[None] + 4 * B * H * T * T < used["p"]  # scores and weights are nowhere
    seed = np.random.default_rng(7).normal(size=tuple(want["y"].shape)).astype(np.float32)
    with gradcam.Run(gradcam.Net(onnx_model)) as run:
        run.set_input("x", x)
        run.watch("x")
        run.forward()
        close(run.value("y"), want["y"])
        run.backward("y", seed)
        if case["mask"] != "nothing":
            want["y"].backward(torch.from_numpy(seed).double())
            assert np.abs(run.gradient("x") - tx.grad.numpy()).max() < 1e-5


@pytest.mark.parametrize("change", ["axis", "scaled_mask", "repeated", "long_mask", "other_reader"])
def test_what_is_not_attention(change):
    """Near misses keep their own steps; the numbers are those of the definition."""
    nodes, mask = graph(mask="left"), masks("left")
    mask[np.isinf(mask)] = -3
    x = np.random.default_rng(8).normal(size=(B, T, 3 * C)).astype(np.float32)
    q, k, v = (a.reshape(HEADS).transpose(1, 2) for a in torch.from_numpy(x).double().chunk(3, -1))
    s, m = q @ k.transpose(2, 3) / D ** 0.5, torch.from_numpy(mask).double()
    p = torch.softmax(s + m, -1)
    at = [n[0] for n in nodes].index("Softmax")
    if change == "axis":
        nodes[at] = ("Softmax", ["m"], ["p"], {"axis": 2})
        p = torch.softmax(s + m, 2)
    elif change == "scaled_mask":
        nodes[at:at + 1] = [("Mul", ["m", "eight"], ["m2"], {}), ("Softmax", ["m2"], ["p"], {"axis": -1})]
        p = torch.softmax((s + m) * D ** 0.5, -1)
    elif change == "repeated":  # one head of values for all
        nodes[at + 1:at + 1] = [("Gather", ["vh", "i0"], ["v0"], {"axis": 1}), ("Unsqueeze", ["v0", "one"], ["v1"], {}),
                                ("MatMul", ["p", "v1"], ["o"], {})]
        del nodes[at + 4]
        nodes = [n if n[0] != "Unsqueeze" else ("Reshape", ["v0", "single"], ["v1"], {}) for n in nodes]
        v = v[:, :1]
    elif change == "long_mask":
        mask = np.stack([mask, mask + 1])[:, None]
        p = torch.softmax(s + torch.from_numpy(mask).double(), -1)
    y = (p @ v).transpose(1, 2).reshape(B, T, C)
    if change == "other_reader":
        nodes += [("ReduceSum", ["p"], ["total"], {"keepdims": 0}), ("Add", ["y", "total"], ["z"], {})]
        nodes = [(op, i, [{"y": "y0", "z": "y"}.get(n, n) for n in o], a) for op, i, o, a in nodes]
        nodes[-1] = ("Add", ["y0", "total"], ["y"], {})
        y = y + p.sum()
    onnx_model = model(nodes, mask)
    if change == "repeated":
        m = onnx.load_from_string(onnx_model)
        m.graph.initializer.append(numpy_helper.from_array(np.array([B, 1, T, D], np.int64), "single"))
        onnx_model = m.SerializeToString()
    with gradcam.Run(gradcam.Net(onnx_model)) as run:
        run.set_input("x", x)
        run.forward()
        assert np.abs(run.value("y") - y.numpy()).max() < 3e-6 * max(1, y.abs().max().item())


@pytest.mark.parametrize("name", ["qh", "kt", "vh", "s", "p", "o", "ot"])
def test_what_a_hook_replaces(name):
    """A value on the way that somebody may change is computed, and what follows is made of it."""
    x = np.random.default_rng(8).normal(size=(B, T, 3 * C)).astype(np.float32)
    given = np.random.default_rng(6)
    q, k, v = (a.reshape(HEADS).transpose(1, 2) for a in torch.from_numpy(x).double().chunk(3, -1))
    shape = {"qh": q.shape, "kt": (B, H, D, T), "vh": v.shape, "s": (B, H, T, T), "p": (B, H, T, T), "o": q.shape,
             "ot": HEADS}[name]
    new = given.normal(size=tuple(shape)).astype(np.float32)
    t = torch.from_numpy(new).double()
    s = t if name == "s" else (t if name == "qh" else q) @ (t if name == "kt" else k.transpose(2, 3)) / D ** 0.5
    p = t if name == "p" else torch.softmax(s, -1)
    o = t if name == "o" else p @ (t if name == "vh" else v)
    y = (t if name == "ot" else o.transpose(1, 2)).reshape(B, T, C)
    with gradcam.Run(gradcam.Net(model(graph(), None))) as run:
        run.set_input("x", x)
        run.on_forward(name, lambda _name, _a: new, write=True)
        run.forward()
        assert np.abs(run.value("y") - y.numpy()).max() < 3e-5
