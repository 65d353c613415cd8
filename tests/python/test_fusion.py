# SPDX-License-Identifier: MIT
"""What a step does for the steps after it: numbers are those of the separate steps, seen or unseen."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from one_op import gradcam  # noqa: E402
from torch.nn import functional as F  # noqa: E402

CHANNELS, SIDE = 40, 17


def silu(x):
    return x * torch.sigmoid(x)


# name: nodes after value "h", from it to "y"; and the same in PyTorch
AFTER = {
    "silu": ([("Sigmoid", ["h"], "s", {}), ("Mul", ["h", "s"], "y", {})], silu),
    "silu_swapped": ([("Sigmoid", ["h"], "s", {}), ("Mul", ["s", "h"], "y", {})], silu),
    "sigmoid": ([("Sigmoid", ["h"], "y", {})], torch.sigmoid),
    "tanh": ([("Tanh", ["h"], "y", {})], torch.tanh),
    "hardswish": ([("HardSwish", ["h"], "y", {})], F.hardswish),
    "gelu": ([("Gelu", ["h"], "y", {})], F.gelu),
    "gelu_tanh": ([("Gelu", ["h"], "y", {"approximate": "tanh"})], lambda x: F.gelu(x, approximate="tanh")),
    "mish": ([("Mish", ["h"], "y", {})], F.mish),
    "swish": ([("Swish", ["h"], "y", {})], silu),
    "swish_steep": ([("Swish", ["h"], "y", {"alpha": 1.7})], lambda x: x * torch.sigmoid(1.7 * x)),
    "relu": ([("Relu", ["h"], "y", {})], F.relu),
    "relu6": ([("Clip", ["h", "zero", "six"], "y", {})], F.relu6),
    "clip": ([("Clip", ["h", "one", "six"], "y", {})], lambda x: x.clamp(1, 6)),
    "gate_of_another": ([("Sigmoid", ["h"], "s", {}), ("Mul", ["s", "x"], "y", {})], None),
    "read_thrice": ([("Sigmoid", ["h"], "s", {}), ("Mul", ["h", "s"], "m", {}), ("Add", ["m", "h"], "y", {})],
                    lambda x: silu(x) + x),
    "square": ([("Sigmoid", ["h"], "s", {}), ("Mul", ["s", "s"], "y", {})], lambda x: torch.sigmoid(x) ** 2),
    "add_silu": ([("Add", ["h", "x"], "a", {}), ("Sigmoid", ["a"], "s", {}), ("Mul", ["a", "s"], "y", {})], None),
    "mean": ([("ReduceMean", ["h", "axes"], "y", {"keepdims": 1})], lambda x: x.mean((2, 3), keepdim=True)),
    "mean_flat": ([("ReduceMean", ["h", "axes"], "y", {"keepdims": 0})], lambda x: x.mean((2, 3))),
}


def first(kind, rng):
    """The node that makes "h" of "x", its weights, and PyTorch's version: each kind has a kernel of its own."""
    n = CHANNELS
    if kind == "BatchNormalization":
        w = [rng.normal(size=n), rng.normal(size=n), rng.normal(size=n), rng.uniform(0.5, 2, n)]
        w = [a.astype(np.float32) for a in w]
        scale, bias, mean, var = map(torch.from_numpy, w)
        return ({}, w, lambda x: F.batch_norm(x, mean, var, scale, bias))
    group, side = {"1x1": (1, 1), "depthwise": (n, 3), "winograd": (1, 3), "grouped": (4, 3)}[kind]
    w = [rng.normal(size=(n, n // group, side, side)) / side, rng.normal(size=n)]
    w = [a.astype(np.float32) for a in w]
    attrs = {"group": group, "pads": [side // 2] * 4}
    return attrs, w, lambda x: F.conv2d(x, *map(torch.from_numpy, w), padding=side // 2, groups=group)


def model(kind, attrs, weights, nodes):
    op = kind if kind == "BatchNormalization" else "Conv"
    names = [f"w{i}" for i in range(len(weights))]
    made = [helper.make_node(op, ["x", *names], ["h"], **attrs)]
    made += [helper.make_node(o, i, [out], **a) for o, i, out, a in nodes]
    constants = [numpy_helper.from_array(w, name) for w, name in zip(weights, names, strict=True)]
    constants.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    constants += [numpy_helper.from_array(np.float32(v), name) for v, name in ((0, "zero"), (1, "one"), (6, "six"))]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, CHANNELS, None, None])
    graph = helper.make_graph(made, "g", [x], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)]).SerializeToString()


def largest(a, b, size=0.0):
    """The largest difference, relative to the largest of b and `size`, the size of what b was made of."""
    return np.abs(a - b).max() / max(np.abs(b).max(), size)


@pytest.mark.parametrize("kind", ["1x1", "depthwise", "winograd", "grouped", "BatchNormalization"])
@pytest.mark.parametrize("after", AFTER)
def test_fused(kind, after):
    rng = np.random.default_rng(7)
    attrs, weights, fn = first(kind, rng)
    nodes, then = AFTER[after]
    x = rng.normal(size=(2, CHANNELS, SIDE, SIDE)).astype(np.float32)
    tx = torch.from_numpy(x).double().requires_grad_()
    h = fn(tx.float()).double()
    if after == "gate_of_another":
        y = torch.sigmoid(h) * tx
    else:
        y = silu(h + tx) if after == "add_silu" else then(h)
    seed = rng.normal(size=tuple(y.shape)).astype(np.float32)
    gradient = torch.autograd.grad(y, tx, torch.from_numpy(seed).double())[0].numpy()
    net = gradcam.Net(model(kind, attrs, weights, nodes))
    with gradcam.Run(net) as unseen, gradcam.Run(net) as seen, gradcam.Run(net) as back:
        for run in (unseen, seen, back):
            run.set_input("x", x)
        for _, _, out, _ in nodes:
            seen.watch(out, gradcam.WATCH_VALUE)
        seen.watch("h", gradcam.WATCH_VALUE)
        back.watch("x", gradcam.WATCH_GRAD)
        for run in (unseen, seen, back):
            run.forward()
            # what follows h has slopes of about 1 at most, so h's rounding comes through
            assert largest(run.value("y"), y.detach().numpy(), np.abs(h.detach().numpy()).max()) < 4e-6
        assert largest(seen.value("h"), h.detach().numpy()) < 4e-6
        back.backward("y", seed)
        assert largest(back.gradient("x"), gradient) < 4e-6


@pytest.mark.parametrize("seen", ["s", "h"])
def test_values_that_are_seen_keep_their_steps(seen):
    """Whoever watches the gate, or what it is the gate of, gets it, though all could be one step."""
    rng = np.random.default_rng(8)
    attrs, weights, fn = first("1x1", rng)
    x = rng.normal(size=(1, CHANNELS, SIDE, SIDE)).astype(np.float32)
    with gradcam.Run(gradcam.Net(model("1x1", attrs, weights, AFTER["silu"][0]))) as run:
        run.set_input("x", x)
        run.watch(seen, gradcam.WATCH_VALUE)  # a gradient there would end the fusion by itself
        run.forward()
        h = fn(torch.from_numpy(x))
        assert largest(run.value(seen), (h if seen == "h" else torch.sigmoid(h)).numpy()) < 4e-6


@pytest.mark.parametrize("rule", ["plain", "guided", "deconvnet"])
@pytest.mark.parametrize("after", ["silu", "silu_swapped", "read_thrice", "square", "gate_of_another"])
def test_a_gate_and_its_product_are_one_step_under_every_rule(after, rule):
    """The rule is that of the Sigmoid's node: what goes past it through the product stays as it is."""
    rng = np.random.default_rng(11)
    attrs, weights, _ = first("1x1", rng)
    x = rng.normal(size=(2, CHANNELS, SIDE, SIDE)).astype(np.float32)
    net = gradcam.Net(model("1x1", attrs, weights, AFTER[after][0]))
    got = []
    for watched in ((), ("s",)):  # who watches the gate has two steps
        with gradcam.Run(net) as run:
            run.set_input("x", x)
            for name in watched:
                run.watch(name, gradcam.WATCH_VALUE)
            gradient = run.guided_backprop(kind="element", index=77, rule=rule, plain_rule=rule == "plain")
            got.append((gradient, run.report.rule_nodes, run.value("y").copy()))
    (one, one_nodes, y), (two, two_nodes, expected) = got
    assert largest(one, two) < 2e-6 and largest(y, expected) < 1e-6 and one_nodes == two_nodes
    assert len(one_nodes) == (0 if rule == "plain" else 1) and np.abs(two).max() > 0


def test_the_bounds_of_relu6_have_no_gradient_and_those_of_clip_have():
    """As in PyTorch; both hang on values that lie exactly there."""
    x = np.array([-1, 0, 0.5, 1, 5.5, 6, 7, np.nan], np.float32).reshape(1, 1, 1, 8) * np.ones((1, CHANNELS, 1, 1), "f4")
    weights = [np.eye(CHANNELS, dtype=np.float32).reshape(CHANNELS, CHANNELS, 1, 1), np.zeros(CHANNELS, np.float32)]
    for name, fn in (("relu6", F.relu6), ("clip", lambda t: t.clamp(1, 6))):
        tx = torch.from_numpy(x).requires_grad_()
        fn(tx)[..., :7].sum().backward()
        with gradcam.Run(gradcam.Net(model("1x1", {}, weights, AFTER[name][0]))) as run:
            run.set_input("x", x[..., :7])
            run.watch("x", gradcam.WATCH_GRAD)
            run.forward()
            run.backward("y", np.ones((1, CHANNELS, 1, 7), np.float32))
            assert np.array_equal(run.gradient("x"), tx.grad.numpy()[..., :7])


# ---- concatenation along channels, whose inputs are written in place ----


def dense_block(extra=(), late=None):
    """As in DenseNet: every layer reads all that came before.  `extra` nodes follow; `late` reads c3 after c4."""
    rng = np.random.default_rng(9)
    nodes, constants = [], []
    nodes.append(helper.make_node("MaxPool", ["x"], ["f0"], kernel_shape=[2, 2], strides=[2, 2]))
    for i in range(1, 4):
        inputs, joined = [f"f{k}" for k in range(i)], f"c{i}"
        nodes.append(helper.make_node("Concat", inputs, [joined], axis=1))
        channels = CHANNELS + 16 * (i - 1)
        for name, shape in ((f"s{i}", (channels,)), (f"b{i}", (channels,)), (f"w{i}", (16, channels, 3, 3))):
            constants.append(numpy_helper.from_array((rng.normal(size=shape) / 5).astype(np.float32), name))
        constants.append(numpy_helper.from_array(np.ones(channels, np.float32), f"v{i}"))
        nodes.append(helper.make_node("BatchNormalization", [joined, f"s{i}", f"b{i}", f"b{i}", f"v{i}"], [f"n{i}"]))
        nodes.append(helper.make_node("Relu", [f"n{i}"], [f"r{i}"]))
        nodes.append(helper.make_node("Conv", [f"r{i}", f"w{i}"], [f"f{i}"], pads=[1] * 4))
    nodes.append(helper.make_node("Concat", ["f0", "f1", "f2", "f3"], ["c4"], axis=1))
    nodes.append(helper.make_node("AveragePool", ["c4"], ["y"], kernel_shape=[2, 2], strides=[2, 2]))
    nodes += [helper.make_node(op, [name], [out]) for op, name, out in extra]
    outputs = ["y", *(out for _, _, out in extra)]
    if late:  # a 1x1 convolution of c3 whose weights wait for c4, which they do not depend on
        weights = rng.normal(size=(4, CHANNELS + 32, 1, 1)).astype(np.float32)
        constants += [numpy_helper.from_array(weights, "late_w"), numpy_helper.from_array(np.float32(0), "zero")]
        nodes += [helper.make_node("ReduceMean", ["c4"], ["mean"], keepdims=0),
                  helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
                  helper.make_node("Add", ["late_w", "nothing"], ["late_weights"]),
                  helper.make_node("Conv", ["c3", "late_weights"], [late])]
        outputs.append(late)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, CHANNELS, None, None])
    graph = helper.make_graph(nodes, "g", [x], [helper.make_tensor_value_info(o, TensorProto.FLOAT, None)
                                                for o in outputs], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()


def all_values(model, x, watched, gradient_of="x"):
    with gradcam.Run(gradcam.Net(model)) as run:
        run.set_input("x", x)
        for name in watched:
            run.watch(name, gradcam.WATCH_VALUE)
        if gradient_of:
            run.watch(gradient_of, gradcam.WATCH_GRAD)
        run.forward()
        return {name: run.value(name).copy() for name in [*watched, "y"]}, run.arena_bytes


@pytest.mark.parametrize("batch", [1, 3])
def test_joined_values_are_those_of_the_copying_plan(batch):
    """A gradient at x makes every part its own; who watches a value in the middle ends its joint storage."""
    x = np.random.default_rng(10).normal(size=(batch, CHANNELS, 12, 20)).astype(np.float32)
    model = dense_block()
    names = [f"{kind}{i}" for i in range(1, 4) for kind in "cnrf"] + ["f0", "c4"]
    expected, copied = all_values(model, x, names)
    joined, kept = all_values(model, x, [], None)
    assert np.array_equal(joined["y"], expected["y"]) and kept < copied
    for name in names:
        got, _ = all_values(model, x, [name], None)
        assert np.array_equal(got[name], expected[name]) and np.array_equal(got["y"], expected["y"]), name


def test_a_part_that_is_read_later_survives_a_hook_on_the_whole():
    x = np.random.default_rng(11).normal(size=(1, CHANNELS, 12, 12)).astype(np.float32)
    model = dense_block(extra=[("Identity", "f3", "late"), ("Relu", "f2", "other")])
    with gradcam.Run(gradcam.Net(model)) as run:
        run.set_input("x", x)
        run.watch("f3", gradcam.WATCH_VALUE)
        run.forward()
        f3 = run.value("f3").copy()
    with gradcam.Run(gradcam.Net(model)) as run:
        run.set_input("x", x)
        run.on_forward("c4", lambda name, a: a * 0, write=True)
        run.forward()
        assert not run.value("y").any()
        assert np.array_equal(run.value("late"), f3)
        assert run.value("other").any()


def test_a_shorter_whole_that_is_read_later_survives_a_hook_on_the_longer_one():
    """c3 lies within c4; its reader runs after the hook on c4 has cleared that."""
    x = np.random.default_rng(12).normal(size=(1, CHANNELS, 12, 12)).astype(np.float32)
    model = dense_block(late="late")
    with gradcam.Run(gradcam.Net(model)) as run:
        run.set_input("x", x)
        run.forward()
        expected = run.value("late").copy()
    with gradcam.Run(gradcam.Net(model)) as run:
        run.set_input("x", x)
        run.on_forward("c4", lambda name, a: a * 0, write=True)
        run.forward()
        assert not run.value("y").any() and np.array_equal(run.value("late"), expected)


@pytest.mark.parametrize("name", ["f0", "f1", "c2", "c3"])
def test_a_hook_changes_what_reads_its_value_and_nothing_else(name):
    """A gradient at x makes the plan copy, which is what is right."""
    x = np.random.default_rng(14).normal(size=(1, CHANNELS, 12, 12)).astype(np.float32)
    got = []
    for gradient in (True, False):
        with gradcam.Run(gradcam.Net(dense_block())) as run:
            run.set_input("x", x)
            if gradient:
                run.watch("x", gradcam.WATCH_GRAD)
            run.on_forward(name, lambda _name, a: a * 0.5, write=True)
            run.forward()
            got.append(run.value("y").copy())
    assert np.array_equal(*got)


# ---- transposes and reshapes that move nothing ----


@pytest.mark.parametrize("op,attrs", [("Transpose", {"perm": [0, 2, 3, 1]}), ("Flatten", {})])
@pytest.mark.parametrize("kind", ["1x1", "input"])
def test_views_do_not_leak(op, attrs, kind):
    """Whoever changes what is seen elsewhere changes a copy; gradients go through as through any other step."""
    rng = np.random.default_rng(13)
    conv, weights, fn = first("1x1", rng)
    x = rng.normal(size=(2, CHANNELS, 6, 6)).astype(np.float32)
    constants = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)]
    made = [helper.make_node("Conv", ["x", "w0", "w1"], ["h"], **conv)] if kind == "1x1" else []
    of = "h" if kind == "1x1" else "x"
    made += [helper.make_node(op, [of], ["v"], **attrs), helper.make_node("Mul", ["v", "v"], ["y"]),
             helper.make_node("Mul", [of, of], ["late"])]
    outputs = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in ("y", "late")]
    x_info = helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)
    graph = helper.make_graph(made, "g", [x_info], outputs, constants)
    net = gradcam.Net(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString())
    tx = torch.from_numpy(x).requires_grad_()
    h = fn(tx) if kind == "1x1" else tx
    v = h.permute(0, 2, 3, 1) if op == "Transpose" else h.flatten(1)
    with gradcam.Run(net) as run:
        run.set_input("x", x)
        run.forward()
        assert largest(run.value("y"), (v * v).detach().numpy()) < 4e-6
    with gradcam.Run(net) as run:
        run.set_input("x", x)
        run.on_forward("v", lambda name, a: a * 0, write=True)
        run.forward()
        assert not run.value("y").any() and largest(run.value("late"), (h * h).detach().numpy()) < 4e-6
    seed = rng.normal(size=tuple(v.shape)).astype(np.float32)
    gradient = torch.autograd.grad(v * v, tx, torch.from_numpy(seed))[0].numpy()
    with gradcam.Run(net) as run:
        run.set_input("x", x)
        run.watch("x", gradcam.WATCH_GRAD)
        run.forward()
        run.backward("y", seed)
        assert largest(run.gradient("x"), gradient) < 4e-6


@pytest.mark.parametrize("watch", [None, "h", "r", "a"])
@pytest.mark.parametrize("again", [False, True])
def test_gradients_that_are_passed_on(again, watch):
    """Behind a Reshape and the sum with a constant gradients are as in front of them, unless another step adds its own."""
    rng = np.random.default_rng(2)
    x, w, v, b = (rng.normal(size=s).astype(np.float32) for s in ((2, 3, 4), (2, 12), (2, 3, 4), (2, 12)))
    nodes = [helper.make_node("Neg", ["x"], ["e"]), helper.make_node("Neg", ["e"], ["f"]),
             helper.make_node("Tanh", ["f"], ["h"]), helper.make_node("Reshape", ["h", "flat"], ["r"]),
             helper.make_node("Add", ["r", "b"], ["a"]), helper.make_node("Mul", ["a", "w"], ["s"]),
             helper.make_node("Mul", ["h", "v"], ["q"]), helper.make_node("Reshape", ["q", "flat"], ["p"]),
             helper.make_node("Add", ["s", "p"] if again else ["s", "b"], ["y"])]
    constants = [numpy_helper.from_array(a, n) for n, a in (("w", w), ("v", v), ("b", b), ("flat", np.array([2, 12])))]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 4])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)
    seed = rng.normal(size=(2, 12)).astype(np.float32)
    da = {"a": seed * w, "r": seed * w}
    da["h"] = da["r"].reshape(x.shape) + (seed.reshape(x.shape) * v if again else 0)
    with gradcam.Run(gradcam.Net(model.SerializeToString())) as run:
        run.set_input("x", x)
        for name in ("x", watch) if watch else ("x",):
            run.watch(name, gradcam.WATCH_GRAD)
        run.forward()
        for _ in range(2):
            run.backward("y", seed)
            assert np.allclose(run.gradient("x"), da["h"] * (1 - np.tanh(x) ** 2), atol=1e-6)
            assert watch is None or np.allclose(run.gradient(watch), da[watch], atol=1e-6)
