# SPDX-License-Identifier: MIT
"""Chains of convolutions that run a few lines at a time: the bits of the steps one by one, for any number of threads."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from one_op import gradcam  # noqa: E402
from torch.nn import functional as F  # noqa: E402


def chain(kernel=3, stride=1, dilation=1, pads=None, wide=96, narrow=24, head=(1, 1, 0), act="Relu", residual=False,
          stages=(True, True, True)):
    """x -> [dense convolution -> a] -> depthwise -> b -> [1x1 -> y], each wide one with an activation."""
    rng = np.random.default_rng(5)
    channels = narrow if stages[0] else wide
    size, step, pad = head
    side = dilation * (kernel // 2)
    nodes, constants = [], []

    def conv(x, y, out, inputs, kernel, **attrs):
        w = rng.normal(size=(out, inputs, kernel, kernel)) / np.sqrt(inputs * kernel * kernel)
        constants.append(numpy_helper.from_array(w.astype(np.float32), f"w_{y}"))
        constants.append(numpy_helper.from_array(rng.normal(size=out).astype(np.float32), f"b_{y}"))
        nodes.append(helper.make_node("Conv", [x, f"w_{y}", f"b_{y}"], [y], **attrs))

    def then(x, y):
        if act == "Silu":
            nodes.append(helper.make_node("Sigmoid", [x], [f"{x}_gate"]))
            nodes.append(helper.make_node("Mul", [x, f"{x}_gate"], [y]))
        else:
            nodes.append(helper.make_node(act, [x], [y]))

    at = "x"
    if stages[0]:
        conv("x", "a_raw", wide, channels, size, strides=[step] * 2, pads=[pad] * 4)
        then("a_raw", "a")
        at = "a"
    conv(at, "b_raw", wide, 1, kernel, group=wide, strides=[stride] * 2, dilations=[dilation] * 2,
         pads=pads or [side] * 4)
    then("b_raw", "b" if stages[2] else "y")
    if stages[2]:
        conv("b", "c" if residual else "y", narrow, wide, 1)
        if residual:
            nodes.append(helper.make_node("Add", ["c", "x"], ["y"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, channels, None, None])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    return made.SerializeToString(), channels, {c.name: torch.from_numpy(numpy_helper.to_array(c).copy()) for c in constants}


def by_torch(x, w, kernel=3, stride=1, dilation=1, pads=None, head=(1, 1, 0), act="Relu", residual=False,
             stages=(True, True, True), wide=96, **_):
    acts = {"Relu": F.relu, "Silu": F.silu, "Tanh": torch.tanh}
    y = x
    if stages[0]:
        y = acts[act](F.conv2d(y, w["w_a_raw"], w["b_a_raw"], stride=head[1], padding=head[2]))
    side = dilation * (kernel // 2)
    top, left, bottom, right = pads or [side] * 4
    y = F.pad(y, (left, right, top, bottom))
    y = acts[act](F.conv2d(y, w["w_b_raw"], w["b_b_raw"], stride=stride, dilation=dilation, groups=wide))
    if stages[2]:
        last = "c" if residual else "y"
        y = F.conv2d(y, w[f"w_{last}"], w[f"b_{last}"])
    return y + x if residual else y


def run(net, x, watch=(), precision=None):
    with gradcam.Run(net) as r:
        r.set_input("x", x)
        if precision:
            r.set_precision(precision)
        for name in watch:
            r.watch(name, gradcam.WATCH_VALUE)
        r.forward()
        return r.value("y").copy(), r.arena_bytes


CASES = {
    "plain": ({}, (1, 48, 40)),
    "residual": ({"residual": True}, (1, 48, 40)),
    "batch": ({"residual": True, "act": "Silu"}, (3, 44, 40)),
    "stride": ({"stride": 2}, (1, 57, 49)),
    "five": ({"kernel": 5, "stride": 2, "act": "Silu"}, (2, 48, 45)),
    "dilated": ({"dilation": 3, "act": "Tanh"}, (1, 41, 43)),
    "seven": ({"kernel": 7, "wide": 100, "narrow": 20}, (1, 50, 40)),
    "uneven": ({"pads": [0, 2, 4, 1]}, (1, 43, 41)),
    "far_padding": ({"pads": [9, 0, 9, 0]}, (1, 40, 44)),
    "first_layer": ({"head": (3, 2, 1), "narrow": 3, "wide": 32}, (1, 132, 140)),
    "two_first": ({"stages": (True, True, False)}, (1, 48, 40)),
    "two_last": ({"stages": (False, True, True)}, (1, 48, 40)),
    "wide_line": ({"wide": 144}, (1, 28, 300)),
    "small": ({"wide": 384, "narrow": 64, "residual": True}, (1, 14, 14)),
}


@pytest.mark.parametrize("case", CASES)
def test_strips(case):
    options, shape = CASES[case]
    model, channels, weights = chain(**options)
    x = np.random.default_rng(6).normal(size=(shape[0], channels, *shape[1:])).astype(np.float32)
    stages = options.get("stages", (True, True, True))
    seen = (["a"] if stages[0] else []) + (["b"] if stages[2] else [])
    whole, most = None, 0
    for threads in (1, 2, 3, 4):
        with gradcam.Context(threads=threads) as ctx, gradcam.Net(model, ctx) as net:
            y, stored = run(net, x)
            if whole is None:
                whole, most = run(net, x, seen)
                tx = torch.from_numpy(x).double()
                expected = by_torch(tx, {k: v.double() for k, v in weights.items()}, **options).numpy()
                assert np.abs(whole - expected).max() < 3e-6 * np.abs(expected).max()
                assert not all(stages) or stored < 0.75 * most  # the wide maps are not there
            for name in seen:  # one link is missing
                assert np.array_equal(run(net, x, [name])[0], whole)
            assert np.array_equal(y, whole), threads


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("shape", [(1, 96, 28, 30), (2, 100, 14, 14), (3, 48, 7, 61)])
def test_squeeze_and_excitation(swapped, shape):
    """The product with the gate is made a few lines at a time, in front of the 1x1 convolution that reads it."""
    rng = np.random.default_rng(7)
    channels = shape[1]
    weights = {"w_gate": rng.normal(size=(channels, channels, 1, 1)) / np.sqrt(channels),
               "w": rng.normal(size=(24, channels, 1, 1)) / np.sqrt(channels)}
    weights = {k: v.astype(np.float32) for k, v in weights.items()}
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
             helper.make_node("Conv", ["mean", "w_gate"], ["g"]), helper.make_node("Sigmoid", ["g"], ["gate"]),
             helper.make_node("Mul", ["x", "gate"] if swapped else ["gate", "x"], ["m"]),
             helper.make_node("Conv", ["m", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
                              [numpy_helper.from_array(v, k) for k, v in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()
    x = (4 * rng.normal(size=shape)).astype(np.float32)
    tx, w = torch.from_numpy(x).double(), {k: torch.from_numpy(v).double() for k, v in weights.items()}
    gate = torch.sigmoid(F.conv2d(tx.mean((2, 3), keepdim=True), w["w_gate"]))
    expected = F.relu(F.conv2d(tx * gate, w["w"])).numpy()
    for threads in (1, 2, 3):
        with gradcam.Context(threads=threads) as ctx, gradcam.Net(model, ctx) as net:
            whole, most = run(net, x, ["m"])
            y, stored = run(net, x)
            assert np.abs(y - expected).max() < 3e-6 * np.abs(expected).max()
            assert np.array_equal(y, whole) and (threads > 1 or stored < most)  # every thread has windows


@pytest.mark.parametrize("case", ["residual", "batch", "stride", "first_layer", "wide_line", "small"])
def test_strips_in_bfloat16(case):
    """Tiles of strips are other tiles than those of whole maps, with the same sums: so many threads that there would not
    be lines for all of them make whole maps.  Watched maps are not rounded on the way."""
    options, shape = CASES[case]
    model, channels, _ = chain(**options)
    x = np.random.default_rng(6).normal(size=(shape[0], channels, *shape[1:])).astype(np.float32)
    with gradcam.Context(threads=64) as ctx, gradcam.Net(model, ctx) as net:
        try:
            whole, most = run(net, x, (), "bf16")
        except gradcam.GradcamError as refused:
            pytest.skip(str(refused))
    for threads in (1, 2, 3):
        with gradcam.Context(threads=threads) as ctx, gradcam.Net(model, ctx) as net:
            y, stored = run(net, x, (), "bf16")
            # Every thread has windows, and the windows may hold all of small maps.
            assert np.array_equal(y, whole) and (threads > 1 or case == "small" or stored < most)
            seen, _ = run(net, x, ["a", "b"], "bf16")
            assert 0 < np.abs(y - seen).max() < 2.0**-6 * np.abs(seen).max()


SMALL = {
    "project": ({"wide": 960, "narrow": 160}, (1, 7, 7)),
    "five": ({"kernel": 5, "wide": 480, "narrow": 80, "act": "Silu", "stages": (True, True, False)}, (2, 14, 13)),
    "stride": ({"kernel": 5, "stride": 2, "wide": 144, "narrow": 24, "stages": (True, True, False)}, (1, 27, 29)),
    "dilated": ({"dilation": 2, "wide": 112, "narrow": 18, "act": "Tanh", "stages": (True, True, False)}, (3, 9, 8)),
    "odd_rest": ({"wide": 100, "narrow": 16, "stages": (True, True, False)}, (1, 12, 12)),
}


@pytest.mark.parametrize("precision", [None, "bf16"])
@pytest.mark.parametrize("case", SMALL)
def test_small_maps_by_columns(case, precision):
    """A block of channels at a time through both convolutions: the bits of the steps one by one, which have `a` seen."""
    options, shape = SMALL[case]
    options = {"head": (1, 1, 0), **options}
    model, channels, weights = chain(**options)
    x = np.random.default_rng(6).normal(size=(shape[0], channels, *shape[1:])).astype(np.float32)
    tx = torch.from_numpy(x).double()
    expected = by_torch(tx, {k: v.double() for k, v in weights.items()}, **options).numpy()
    whole = None
    for threads in (1, 2, 3, 4, 64):
        with gradcam.Context(threads=threads) as ctx, gradcam.Net(model, ctx) as net:
            try:
                y, _ = run(net, x, (), precision)
                seen, _ = run(net, x, ["a"], precision)
            except gradcam.GradcamError as refused:
                pytest.skip(str(refused))
            whole = y if whole is None else whole
            assert np.array_equal(y, whole), threads
            bound = 3e-6 if precision is None else 2.0**-6
            assert np.abs(y - expected).max() < bound * np.abs(expected).max()
            assert precision is not None or np.array_equal(y, seen)


def test_a_gradient_or_a_second_reader_keeps_the_maps():
    model, channels, _ = chain()
    x = np.random.default_rng(6).normal(size=(1, channels, 48, 40)).astype(np.float32)
    with gradcam.Run(gradcam.Net(model)) as back, gradcam.Run(gradcam.Net(model)) as seen:
        for r in (back, seen):
            r.set_input("x", x)
        back.watch("x", gradcam.WATCH_GRAD)
        seen.watch("a", gradcam.WATCH_VALUE | gradcam.WATCH_GRAD)
        for r in (back, seen):
            r.forward()
            r.backward("y", np.ones_like(r.value("y")))
        rows = back.gradient("x")
        tx = torch.from_numpy(x).double().requires_grad_()
        weights = {k: v.double() for k, v in chain()[2].items()}
        by_torch(tx, weights).sum().backward()
        assert np.abs(rows - tx.grad.numpy()).max() < 3e-6 * np.abs(tx.grad.numpy()).max()
        assert seen.value("a").shape[1] == 96
