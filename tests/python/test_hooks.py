# SPDX-License-Identifier: MIT
"""Hooks in Python against the same interventions in PyTorch."""

import gc
import io
import os
import pathlib
import sys
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("GRADCAM_LIBRARY", str(ROOT / "build" / "libgradcam.so"))
sys.path.insert(0, str(ROOT / "bindings" / "python"))
import gradcam  # noqa: E402
from torch import nn  # noqa: E402

BOUND = 1e-5


class Small(nn.Module):
    """Two branches that meet: a value that is read twice has one complete gradient."""

    def __init__(self):
        super().__init__()
        self.first, self.left, self.right = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.last = nn.Linear(4, 3)
        self.edit = {}

    def at(self, name, value):
        """Where PyTorch replaces a value or its gradient."""
        forward, backward = self.edit.get(name, (None, None))
        value = value if forward is None else forward(value)
        if backward is not None:
            value.register_hook(backward)
        return value

    def forward(self, x):
        middle = self.at("middle", torch.relu(self.first(x)))
        both = self.at("both", torch.tanh(self.left(middle)) + self.right(middle))
        return self.last(both.mean((2, 3)))


@pytest.fixture(scope="module")
def exported():
    torch.manual_seed(11)
    net = Small().eval()
    x = torch.randn(2, 2, 7, 6)
    file = io.BytesIO()
    torch.onnx.export(net, x, file, opset_version=17, dynamo=False, input_names=["x"], output_names=["y"])
    return net, x, gradcam.Net(file.getvalue())


@pytest.fixture
def case(exported):
    net, x, loaded = exported
    net.edit.clear()
    ops = {node.op: node.outputs[0] for node in loaded.nodes}
    with gradcam.Run(loaded) as run:
        run.set_input("x", x.numpy())
        yield net, x.clone().requires_grad_(), run, {"middle": ops["Relu"], "both": ops["Add"]}


def close(got, want):
    want = want.detach().numpy()
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= BOUND * np.abs(want).max()


def reference(net, x):
    """Output, and the gradient of output[0, 1] + 2 output[1, 2] with respect to x."""
    y = net(x)
    (grad,) = torch.autograd.grad(y[0, 1] + 2 * y[1, 2], x)
    return y, grad


def passes(run):
    run.watch("x")
    run.forward()
    run.backward("y", [[0, 1, 0], [0, 0, 2]])
    return run.value("y"), run.gradient("x")


def test_observe(case):
    net, x, run, names = case
    seen, want = {}, {}
    for name, value in names.items():
        run.on_forward(value, lambda what, a, name=name: seen.update({name: (what, a.copy())}))
        run.on_backward(value, lambda what, a, name=name: seen.update({"d" + name: (what, a.copy())}))
        net.edit[name] = (lambda v, name=name: want.update({name: v}) or v,
                          lambda g, name=name: want.update({"d" + name: g}) or g)
    got, wanted = passes(run), reference(net, x)
    close(got[0], wanted[0])
    close(got[1], wanted[1])
    for name, value in names.items():
        assert seen[name][0] == seen["d" + name][0] == value
        close(seen[name][1], want[name])
        close(seen["d" + name][1], want["d" + name])


def test_replace_an_activation(case):
    """Ablation: channel 2 off, by writing; everything scaled, by returning."""
    net, x, run, names = case

    def off(_name, a):
        a[:, 2] = 0

    run.on_forward(names["middle"], off, write=True)
    run.on_forward(names["both"], lambda _name, a: 3 * a, write=True)
    mask = torch.tensor([1.0, 1, 0, 1]).view(1, 4, 1, 1)
    net.edit = {"middle": (lambda v: v * mask, None), "both": (lambda v: 3 * v, None)}
    # A hook replaces a value, it is no part of the network: the gradient at "both" is not tripled.
    y, _ = reference(net, x)
    close(passes(run)[0], y)


def test_replace_a_gradient(case):
    net, x, run, names = case
    run.on_backward(names["middle"], lambda _name, g: np.maximum(g, 0), write=True)
    net.edit = {"middle": (None, torch.relu)}
    close(passes(run)[1], reference(net, x)[1])
    plain = gradcam.Run(run.net)
    plain.set_input("x", x.detach().numpy())
    assert np.abs(passes(plain)[1] - passes(run)[1]).max() > 1e-3
    plain.close()


def test_input_and_output(case):
    net, x, run, _ = case
    run.on_forward("x", lambda _name, a: a + 1, write=True)
    run.on_backward("y", lambda _name, g: -g, write=True)
    y, grad = reference(net, (x + 1).detach().requires_grad_())
    got = passes(run)
    close(got[0], y)
    close(got[1], -grad)
    assert np.array_equal(run._arrays["x"], x.detach().numpy())  # the host's array stays


def test_gradcam_with_a_hook(case):
    """A method is a host like any other: hooks act in it."""
    net, x, run, names = case
    run.on_forward(names["middle"], lambda _name, a: a * 0.5, write=True)
    want = {}
    net.edit = {"middle": (lambda v: v * 0.5, None),
                "both": (lambda v: want.update(a=v) or v, lambda g: want.update(g=g) or g)}
    y = net(x)
    y[:, 1].sum().backward()
    alpha = want["g"].mean((2, 3), keepdim=True)
    close(run.gradcam(layer=names["both"], index=1), torch.relu((alpha * want["a"]).sum(1)))


def test_remove(case):
    _, _, run, names = case
    calls = []
    with run.on_forward(names["middle"], lambda *_: calls.append("with")):
        kept = run.on_forward(names["middle"], lambda *_: calls.append("kept"))
        run.forward()
    run.forward()
    kept.remove()
    kept.remove()
    run.forward()
    assert calls == ["with", "kept", "kept"]


def test_remove_inside(case):
    """One hook removes itself and the next one, and adds a third, while the pass is under way."""
    _, _, run, names = case
    calls = []

    def first(*_):
        calls.append("first")
        one.remove()
        other.remove()
        if len(calls) == 1:
            run.on_forward(names["both"], lambda *_: calls.append("third"))

    one = run.on_forward(names["middle"], first)
    other = run.on_forward(names["both"], lambda *_: calls.append("second"))
    run.forward()
    assert calls[0] == "first" and "second" not in calls
    run.forward()
    assert calls.count("first") == 1 and "second" not in calls and calls[-1] == "third"


def test_read_only(case):
    _, _, run, names = case

    def write(_name, a):
        a[...] = 0

    with run.on_forward(names["middle"], write):
        with pytest.raises(ValueError, match="read-only"):
            run.forward()
    with run.on_forward(names["middle"], lambda _name, a: a * 0):
        with pytest.raises(ValueError, match="read-only"):
            run.forward()
    run.forward()


def test_exceptions(case):
    """The hook's own exception comes out, and the run is as good as before."""
    net, x, run, names = case

    class Mine(BaseException):
        pass

    def fail(*_):
        raise Mine("here")

    for add in (run.on_forward, run.on_backward):
        with add(names["both"], fail):
            with pytest.raises(Mine, match="here"):
                passes(run)
            with pytest.raises(Mine, match="here"):
                run.gradcam()
    close(passes(run)[0], net(x))


def test_stop(case):
    _, _, run, names = case

    def stop(*_):
        raise gradcam.Stop(-77)

    with run.on_forward(names["middle"], stop):
        with pytest.raises(gradcam.GradcamError) as caught:
            run.forward()
    assert caught.value.name == "GRADCAM_E_CALLBACK" and caught.value.user_code == -77
    assert names["middle"] in str(caught.value)
    for code in (0, 2**31, "1"):
        with pytest.raises(ValueError):
            gradcam.Stop(code)


def test_calls_inside(case):
    """A hook may ask for values and may fail doing so; it may not close the run."""
    _, _, run, names = case
    seen = []

    def look(*_):
        seen.append(run.value(names["middle"]))
        with pytest.raises(gradcam.GradcamError):
            run.value("nowhere")
        with pytest.raises(RuntimeError, match="inside"):
            run.close()

    run.watch(names["middle"])
    with run.on_backward(names["both"], look):
        passes(run)
    assert np.array_equal(seen[0], run.value(names["middle"]))


def test_mistakes(case):
    _, _, run, names = case
    for arguments, status in ((("nowhere", print), "GRADCAM_E_NOT_FOUND"), ((None, print), "GRADCAM_E_INVALID")):
        with pytest.raises(gradcam.GradcamError) as caught:
            run.on_forward(*arguments)
        assert caught.value.name == status
    with pytest.raises(gradcam.GradcamError, match="phase"):
        run.add_hook(names["both"], print)


def test_nothing_stays(exported):
    """A run that its hook refers to is collected; a removed hook gives its function up."""
    _, x, net = exported
    run = gradcam.Run(net)
    run.set_input("x", x.numpy())

    def look(*_, run=run):
        return None

    hook = run.on_forward("x", look)
    run.forward()
    function = weakref.ref(look)
    hook.remove()
    del look, hook
    gc.collect()
    assert function() is None
    again = run.on_forward("x", lambda *_, run=run: None)
    gone = weakref.ref(run)
    del run, again
    gc.collect()
    assert gone() is None
