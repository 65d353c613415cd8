# SPDX-License-Identifier: MIT
"""Means of gradients over places, which backward passes carry as rows where they can: against PyTorch in double, and
against the mean of the whole gradient.  tests/unit/test_mean.c tells which of them are carried as rows."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
import torch.nn.functional as F  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from one_op import gradcam  # noqa: E402

U = 2.0 ** -24
RNG = np.random.default_rng(5)


def model(nodes, weights, x_shape, outputs=("y",)):
    made = [helper.make_node(op, inputs, [out], **attributes) for op, inputs, out, attributes in nodes]
    read = {name for _, inputs, _, _ in nodes for name in inputs}
    constants = [numpy_helper.from_array(np.asarray(w), name) for name, w in weights.items() if name in read]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, x_shape)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    return helper.make_model(helper.make_graph(made, "g", [x], ends, constants), ir_version=9,
                             opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()


def weights(**shapes):
    return {name: RNG.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def ints(*values):
    return np.array(values, np.int64)


class Case:
    """`then` computes y from x and the weights in PyTorch; sums: terms of all sums on the way, one after the other."""

    def __init__(self, nodes, constants, then, sums, axis=1, skip=0):
        self.nodes, self.weights, self.then, self.sums, self.axis, self.skip = nodes, constants, then, sums, axis, skip


def vgg(x, w):
    h = F.max_pool2d(x, 2)
    h = F.avg_pool2d(h, 3, 1, 1, count_include_pad=False)
    return F.linear(torch.relu(F.linear(h.flatten(1), w["a"], w["b"])), w["c"])


def squeezenet(x, w):
    return torch.relu(F.conv2d(x, w["a"], w["b"])).mean((2, 3), keepdim=True).flatten(1)


def resnet(x, w):
    return F.linear(x.mean((2, 3)), w["a"])


def inception(x, w):
    """Several readers: each is linear place by place."""
    a = F.conv2d(x, w["a"], stride=2).mean((2, 3))
    b = F.max_pool2d(x, 3, 2).mean((2, 3))
    return a + F.linear(b, w["b"]) + F.linear(x.flatten(1), w["c"])


def dense(x, w):
    """One of two readers is not."""
    return F.linear(F.conv2d(x, w["a"], padding=1).mean((2, 3)) + F.conv2d(x, w["b"]).mean((2, 3)), w["c"])


def transformer(x, w):
    """Keys and values of all tokens, the class token's row of attention."""
    qkv = F.linear(x, w["a"].T, w["b"])
    q, k, v = qkv.split(6, 2)
    return F.linear((torch.softmax(q[:, :1] @ k.transpose(1, 2), -1) @ v)[:, 0], w["c"])


NETS = {
    "vgg": Case([("MaxPool", ["x"], "p", {"kernel_shape": [2, 2], "strides": [2, 2]}),
                 ("AveragePool", ["p"], "q", {"kernel_shape": [3, 3], "pads": [1] * 4}),
                 ("Flatten", ["q"], "f", {}), ("Gemm", ["f", "a", "b"], "g", {"transB": 1}), ("Relu", ["g"], "r", {}),
                 ("Gemm", ["r", "c"], "y", {"transB": 1})],
                weights(a=(40, 70 * 15), b=(40,), c=(9, 40)), vgg, 9 + 40 + 15 + 4),
    "squeezenet": Case([("Conv", ["x", "a", "b"], "c", {}), ("Relu", ["c"], "r", {}),
                        ("ReduceMean", ["r", "axes"], "m", {}), ("Reshape", ["m", "shape"], "y", {})],
                       weights(a=(9, 70, 1, 1), b=(9,)) | {"axes": ints(2, 3), "shape": ints(0, -1)}, squeezenet, 9 + 70),
    "resnet": Case([("GlobalAveragePool", ["x"], "p", {}), ("Flatten", ["p"], "f", {}),
                    ("Gemm", ["f", "a"], "y", {"transB": 1})], weights(a=(9, 70)), resnet, 9),
    "inception": Case([("Conv", ["x", "a"], "h", {"strides": [2, 2]}), ("GlobalAveragePool", ["h"], "m", {}),
                       ("Flatten", ["m"], "n", {}), ("MaxPool", ["x"], "p", {"kernel_shape": [3, 3], "strides": [2, 2]}),
                       ("ReduceMean", ["p", "axes"], "q", {"keepdims": 0}), ("Gemm", ["q", "b"], "s", {"transB": 1}),
                       ("Reshape", ["x", "shape"], "v", {}), ("MatMul", ["v", "ct"], "w", {}), ("Add", ["n", "s"], "o", {}),
                       ("Add", ["o", "w"], "y", {})],
                      weights(a=(9, 70, 1, 1), b=(9, 70), c=(9, 70 * 60)) | {"axes": ints(2, 3), "shape": ints(0, -1)},
                      inception, 9 + 60 + 9 + 3),
    "dense": Case([("Conv", ["x", "a"], "h", {"pads": [1] * 4}), ("GlobalAveragePool", ["h"], "m", {}),
                   ("Conv", ["x", "b"], "d", {}), ("GlobalAveragePool", ["d"], "n", {}), ("Add", ["m", "n"], "o", {}),
                   ("Flatten", ["o"], "f", {}), ("Gemm", ["f", "c1"], "y", {"transB": 1})],
                  weights(a=(8, 70, 3, 3), b=(8, 70, 1, 1), c=(9, 8)), dense, 9 + 72 + 60 + 8),
    "transformer": Case([("MatMul", ["x", "a"], "h", {}), ("Add", ["h", "b"], "z", {}),
                         ("Split", ["z", "split"], "q", {"axis": 2})], weights(a=(70, 18), b=(18,), c=(9, 6)), transformer,
                        18 + 60 + 6 + 60 + 18, -1, 1),
}
NETS["inception"].weights["ct"] = NETS["inception"].weights["c"].T.copy()
NETS["transformer"].weights["a"] *= np.float32(0.05)  # attention to more than one token
NETS["dense"].weights["c1"] = NETS["dense"].weights["c"]


def transformer_model(case, shape):
    """Split has several outputs, and the rest follows here."""
    constants = case.weights | {"split": ints(6, 6, 6), "zero": ints(0), "one": ints(1), "axis": ints(1)}
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("Add", ["h", "b"], ["z"]),
             helper.make_node("Split", ["z", "split"], ["q", "k", "v"], axis=2),
             helper.make_node("Slice", ["q", "zero", "one", "axis"], ["r"]),
             helper.make_node("Transpose", ["k"], ["t"], perm=[0, 2, 1]), helper.make_node("MatMul", ["r", "t"], ["s"]),
             helper.make_node("Softmax", ["s"], ["p"], axis=-1), helper.make_node("MatMul", ["p", "v"], ["o"]),
             helper.make_node("Squeeze", ["o", "axis"], ["u"]), helper.make_node("Gemm", ["u", "c"], ["y"], transB=1)]
    tensors = [numpy_helper.from_array(w, name) for name, w in constants.items()]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], tensors)
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()


def input_of(name, batch):
    rng = np.random.default_rng(7)
    shape = (batch, 11, 70) if name == "transformer" else (batch, 70, 6, 10)
    return rng.normal(size=shape).astype(np.float32)


def bytes_of(name, x):
    case = NETS[name]
    return transformer_model(case, x.shape) if name == "transformer" else model(case.nodes, case.weights, x.shape)


def places(gradient, axis, skip):
    """[N, places, C], without the skipped."""
    moved = np.moveaxis(gradient, axis, -1)
    return moved.reshape(moved.shape[0], -1, moved.shape[-1])[:, skip:]


def seed_for(net, x):
    """Random, of the output's shape."""
    with gradcam.Run(net) as run:
        run.set_input("x", x)
        run.forward()
        return RNG.normal(size=run.value("y").shape).astype(np.float32)


def mean_of(net, x, seed, axis=1, skip=0, precision="f32", rule="plain", value="x", start="y"):
    """The mean, and the whole gradient of another run."""
    found = []
    for whole in (False, True):
        with gradcam.Run(net) as run:
            run.set_input("x", x)
            run.set_precision(precision)
            run.set_rule(rule)
            run.watch(start, gradcam.WATCH_VALUE)
            if whole:
                run.watch(value)
            else:
                run.watch_mean(value, axis, skip)
            run.forward()
            for _ in range(2):  # what the first pass has left must not show
                run.backward(start, seed)
            found.append(run.gradient(value) if whole else run.gradient_mean(value))
            found.append(run.rule_nodes)
    assert found[1] == found[3]
    return found[0], found[2]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", list(NETS))
def test_against_pytorch(name, batch, tmp_path):
    case, x = NETS[name], input_of(name, batch)
    data = bytes_of(name, x)
    tx = torch.from_numpy(x).double().requires_grad_()
    y = case.then(tx, {k: torch.from_numpy(w).double() for k, w in case.weights.items() if w.dtype == np.float32})
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    for seed in (RNG.normal(size=tuple(y.shape)), np.eye(9)[[4] * batch]):
        seed = seed.astype(np.float32)
        want = torch.autograd.grad(y, tx, torch.from_numpy(seed).double(), retain_graph=True)[0].numpy()
        want = places(want, case.axis, case.skip)
        bound = case.sums * U * 4 * np.abs(want).max()
        got, whole = mean_of(gradcam.Net(data), x, seed, case.axis, case.skip)
        assert got.shape == (batch, 70)
        assert np.abs(got - want.mean(1)).max() <= bound
        assert np.abs(got - places(whole, case.axis, case.skip).mean(1)).max() <= 2 * bound
        two = gradcam.Net(path, gradcam.Context(threads=2), on_demand=True)
        assert np.array_equal(mean_of(two, x, seed, case.axis, case.skip)[0], got)


@pytest.mark.parametrize("kernels", ["plain", None])
@pytest.mark.parametrize("name", list(NETS))
def test_in_bfloat16(name, kernels):
    """Rows keep their float32: their error is no larger than that of the whole gradient."""
    case, x = NETS[name], input_of(name, 2)
    net = gradcam.Net(bytes_of(name, x), gradcam.Context(kernels=kernels))
    seed = RNG.normal(size=(2, 9)).astype(np.float32)
    exact, _ = mean_of(net, x, seed, case.axis, case.skip)
    try:
        got, whole = mean_of(net, x, seed, case.axis, case.skip, "bf16")
    except gradcam.GradcamError as error:
        assert error.name == "GRADCAM_E_UNSUPPORTED"
        pytest.skip("no bfloat16 here")
    whole = places(whole, case.axis, case.skip)
    assert np.abs(got - whole.mean(1)).max() <= 2.0 ** -6 * np.abs(whole).max()
    assert np.abs(got - exact).max() <= 2.0 ** -4 * np.abs(whole).max()


@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
@pytest.mark.parametrize("name", ["vgg", "squeezenet"])
def test_rules(name, rule):
    """Relu in front of a mean is counted and never differentiated; rules apply to it all the same."""
    case, x = NETS[name], input_of(name, 2)
    seed = RNG.normal(size=(2, 9)).astype(np.float32)
    got, whole = mean_of(gradcam.Net(bytes_of(name, x)), x, seed, rule=rule)
    assert np.abs(got - places(whole, 1, 0).mean(1)).max() <= 2 * case.sums * U * 4 * np.abs(whole).max()


POOLS = [dict(kernel_shape=[2, 3], strides=[2, 2]), dict(kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
         dict(kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"), dict(kernel_shape=[2, 2], auto_pad="VALID"),
         dict(kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), dict(kernel_shape=[1, 1], strides=[3, 3], ceil_mode=1),
         dict(kernel_shape=[3, 3], strides=[3, 3], pads=[2, 2, 2, 2], ceil_mode=1),
         dict(kernel_shape=[2, 2], strides=[4, 4], pads=[1, 1, 1, 1], ceil_mode=1),
         dict(kernel_shape=[3, 2], dilations=[2, 3], pads=[2, 1, 2, 1]),
         dict(kernel_shape=[2, 2], dilations=[10, 1], pads=[1, 0, 1, 0])]  # no tap of some windows is inside


@pytest.mark.parametrize("attributes", POOLS, ids=lambda a: "-".join(f"{k[0]}{v}" for k, v in a.items()))
@pytest.mark.parametrize("op, counts", [("MaxPool", None), ("AveragePool", 0), ("AveragePool", 1)])
def test_pools(op, counts, attributes):
    """Padding, ceil_mode and what an average divides by: not every pooling hands on the whole gradient."""
    more = {} if counts is None else {"count_include_pad": counts}
    x = RNG.normal(size=(2, 5, 9, 8)).astype(np.float32)
    data = model([(op, ["x"], "y", attributes | more)], {}, x.shape)
    net = gradcam.Net(data)
    seed = seed_for(net, x)
    got, whole = mean_of(net, x, seed)
    assert np.abs(got - places(whole, 1, 0).mean(1)).max() <= 4 * 72 * U * np.abs(whole).max()


CONVS = [dict(), dict(strides=[2, 3]), dict(pads=[1, 0, 0, 0]), dict(group=2), dict(auto_pad="SAME_UPPER", strides=[2, 2])]


@pytest.mark.parametrize("attributes", CONVS, ids=str)
def test_convolutions(attributes):
    x = RNG.normal(size=(2, 6, 7, 5)).astype(np.float32)
    w = weights(a=(4, 6 // attributes.get("group", 1), 1, 1))
    net = gradcam.Net(model([("Conv", ["x", "a"], "c", attributes), ("Tanh", ["c"], "y", {})], w, x.shape))
    seed = seed_for(net, x)
    got, whole = mean_of(net, x, seed)
    assert np.abs(got - places(whole, 1, 0).mean(1)).max() <= 4 * (4 + 35) * U * np.abs(whole).max()


def test_every_start():
    """A pass may start at the value itself, or at one on the way that is kept."""
    case, x = NETS["vgg"], input_of("vgg", 2)
    net = gradcam.Net(bytes_of("vgg", x))
    for start, shape in (("x", x.shape), ("p", (2, 70, 3, 5)), ("q", (2, 70, 3, 5)), ("f", (2, 1050)), ("r", (2, 40))):
        seed = RNG.normal(size=shape).astype(np.float32)
        got, whole = mean_of(net, x, seed, start=start)
        assert np.abs(got - places(whole, 1, 0).mean(1)).max() <= case.sums * U * 4 * np.abs(whole).max()


def test_hooks_and_watchers_see_whole_gradients():
    """One that observes or changes a gradient on the way has it whole, and what it writes counts."""
    x = input_of("vgg", 2)
    net, seed = gradcam.Net(bytes_of("vgg", x)), RNG.normal(size=(2, 9)).astype(np.float32)
    seen = []

    def double(_name, g):
        seen.append(g.copy())
        return g * 2

    for name in ("x", "p", "f"):
        with gradcam.Run(net) as run:
            run.set_input("x", x)
            run.watch_mean("x")
            run.watch("q")
            run.forward()
            run.backward("y", seed)
            want, plain = run.gradient_mean("x"), run.gradient("q")
            run.on_backward(name, double, write=True)
            run.forward()
            run.backward("y", seed)
            assert np.allclose(run.gradient_mean("x"), 2 * want, rtol=1e-5, atol=1e-5)
            assert np.allclose(run.gradient("q"), plain * (2 if name == "f" else 1), rtol=1e-5, atol=1e-5)
    assert len(seen) == 3


def test_watchers_of_several_values():
    """Means of two values of which one leads to the other, and the whole gradient of one between them."""
    x = input_of("vgg", 1)
    net, seed = gradcam.Net(bytes_of("vgg", x)), RNG.normal(size=(1, 9)).astype(np.float32)
    with gradcam.Run(net) as run:
        run.set_input("x", x)
        for name in ("x", "q", "p"):
            run.watch_mean(name)
        run.forward()
        run.backward("y", seed)
        means = {name: run.gradient_mean(name) for name in ("x", "q", "p")}
        for name in ("q", "x"):
            run.watch(name)
            run.forward()
            run.backward("y", seed)
            for value, mean in means.items():
                assert np.allclose(run.gradient_mean(value), mean, rtol=1e-5, atol=1e-5)
        assert np.allclose(places(run.gradient("x"), 1, 0).mean(1), means["x"], rtol=1e-5, atol=1e-5)


def test_mistakes():
    x = input_of("resnet", 1)
    with gradcam.Run(gradcam.Net(bytes_of("resnet", x))) as run:
        run.set_input("x", x)
        for axis, skip in ((0, 0), (2, 0), (-2, 0), (1, -1), (1, 1 << 24)):
            with pytest.raises(gradcam.GradcamError, match="GRADCAM_E_INVALID|axis"):
                run.watch_mean("x", axis, skip)
        with pytest.raises(gradcam.GradcamError) as error:
            run.watch_mean("nothing")
        assert error.value.name == "GRADCAM_E_NOT_FOUND"
        run.watch("p")
        run.watch_mean("x", 1, 60)
        run.watch_mean("a")
        run.forward()
        for name, status in (("p", "STATE"), ("x", "SHAPE"), ("a", "NO_GRADIENT")):
            with pytest.raises(gradcam.GradcamError) as error:
                run.gradient_mean(name)
            assert error.value.name == f"GRADCAM_E_{status}", error.value
        run.watch_mean("x", 1, 59)  # the last call counts
        run.forward()
        with pytest.raises(gradcam.GradcamError) as error:
            run.gradient_mean("x")
        assert error.value.name == "GRADCAM_E_NO_GRADIENT"
        run.backward("y", np.ones((1, 9)))
        assert run.gradient_mean("x").shape == (1, 70)


def test_gradcam_of_tokens():
    """Channels on the last axis, without the class token: eq. 1 and 2 of Selvaraju 2017."""
    x = input_of("transformer", 3)
    with gradcam.Run(gradcam.Net(bytes_of("transformer", x))) as run:
        run.set_input("x", x)
        got = run.gradcam(layer="z", index=2, channel_axis=-1, skip=1, signed_map=True)
        assert got.shape == (3, 10)
        assert run.gradcam(layer="z", index=2, channel_axis=-1).shape == (3, 11)
        for pool, grad in (("max", "as_is"), ("mean", "abs"), ("sum", "as_is"), ("mean", "as_is")):
            heat = run.gradcam(layer="z", index=2, channel_axis=-1, skip=1, signed_map=True, pool=pool, grad=grad)
            run.watch("z")
            run.forward()
            run.backward("y", np.eye(9)[[2] * 3])
            a, g = run.value("z")[:, 1:], run.gradient("z")[:, 1:]
            g = np.abs(g) if grad == "abs" else g
            weight = {"max": g.max(1), "mean": g.mean(1), "sum": g.sum(1)}[pool]
            want = (weight[:, None] * a).sum(2)
            assert np.allclose(heat, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
        assert np.allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
        with pytest.raises(gradcam.GradcamError):
            run.gradcam(layer="z", channel_axis=2)
        with pytest.raises(gradcam.GradcamError, match="skipped"):
            run.gradcam(layer="z", channel_axis=-1, skip=11)
