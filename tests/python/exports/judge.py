# SPDX-License-Identifier: MIT
"""Exports a network, runs it with libgradcam, and compares with PyTorch in float64."""

import copy
import os
import pathlib
import sys
import warnings

import numpy as np
import torch

ROOT = pathlib.Path(__file__).resolve().parents[3]
os.environ.setdefault("GRADCAM_LIBRARY", str(ROOT / "build" / "libgradcam.so"))
sys.path.insert(0, str(ROOT / "bindings" / "python"))
import gradcam  # noqa: E402
from .case import draw  # noqa: E402

OUTPUT_BOUND, GRADIENT_BOUND = 1e-4, 1e-3  # relative to the largest element
ROUNDING, ATTEMPTS = 5e-7, 100
CLASS = 1
NOTHING = 1e-3  # a map below this part of its terms is judged to 1e-6 of them, 16 roundings

# name: (new exporter, opset, open axes)
EXPORTERS = {
    "script17": (False, 17, False),
    "script20_open": (False, 20, True),
    "dynamo18": (True, 18, False),
    "dynamo18_open": (True, 18, True),
    "dynamo23": (True, 23, False),
}


def export(c, net, exporter, path):
    """Writes the model; its inputs are called x0, x1, ..., its outputs y and act."""
    dynamo, opset, is_open = EXPORTERS[exporter]
    inputs = draw(c, "example" if is_open else "given")
    names = [f"x{k}" for k in range(len(inputs))]
    options = {"opset_version": opset, "dynamo": dynamo, "input_names": names, "output_names": ["y", "act"]}
    if is_open and dynamo:
        options["dynamic_shapes"] = ({i: torch.export.Dim.DYNAMIC for i in c.free},) * len(inputs)
        options["dynamic_shapes"] = (options["dynamic_shapes"],)  # of the parameter *inputs
    elif is_open:
        options["dynamic_axes"] = {n: {i: f"axis{i}" for i in c.free} for n in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, inputs, str(path), verbose=False, **options)


def reference(net, inputs, seed=None):
    """Output, activation, gradients and map by PyTorch; `seed` is the gradient of the output."""
    inputs = [x.detach().requires_grad_() if x.is_floating_point() else x for x in inputs]
    y, act = net(*inputs)
    leaves = [act] + [x for x in inputs if x.requires_grad]
    seed = torch.randn(y.shape, dtype=y.dtype) if seed is None else seed
    gradients = torch.autograd.grad((y * seed).sum(), leaves, retain_graph=True)
    alpha, = torch.autograd.grad(y[:, CLASS].sum(), [act])
    places = tuple(range(2, act.ndim))
    weighed = alpha.mean(places, keepdim=True) * act if places else None
    cam = weighed.sum(1) if places else None
    # Before a LayerNorm a gradient's mean over the channels is zero: such a map is rounding of its terms.
    terms = float((alpha.abs().mean(places, keepdim=True) * act.abs()).sum(1).max()) if places else 0.0
    return {"y": y, "act": act, "seed": seed, "gradients": gradients, "cam": cam, "terms": terms}


def error(got, want, least=1e-30):
    """The largest difference, relative to the largest element or to `least`."""
    want = want.detach().numpy()
    assert got.shape == want.shape, f"shape {got.shape}, not {want.shape}"
    return float(np.abs(got - want).max() / max(np.abs(want).max(), least)) if want.size else 0.0


@torch.no_grad()
def shaken(net):
    """The network as rounding might have it, and as the opposite roundings would."""
    pair = copy.deepcopy(net), copy.deepcopy(net)
    for p, plus, minus in zip(net.parameters(), pair[0].parameters(), pair[1].parameters()):
        noise = ROUNDING * torch.randn_like(p)
        plus.mul_(1 + noise)
        minus.mul_(1 - noise)
    return pair


def judge(net, redraw):
    """Inputs at which the gradient is steady, and what PyTorch says in float64.

    The gradient of a ReLU network jumps where an activation is zero.  Inputs so near to such a place
    that rounding decides the gradient have no right answer; `redraw` gives others.
    """
    net = copy.deepcopy(net).double()
    witnesses = [*shaken(net), *shaken(net)]
    for _attempt in range(ATTEMPTS):
        inputs = redraw()
        exact = [x.double() if x.is_floating_point() else x for x in inputs]
        want = reference(net, exact)
        if all(steady(want, reference(w, exact, want["seed"])) for w in witnesses):
            return inputs, want
    raise AssertionError("no input with a steady gradient; make the network smaller")


def steady(want, near):
    return all(error(a.numpy(), b) < GRADIENT_BOUND / 5 for a, b in zip(near["gradients"], want["gradients"]))


def measure(path, inputs, want):
    """Relative errors of libgradcam by name."""
    leaves = ["act"] + [f"x{k}" for k, x in enumerate(inputs) if x.is_floating_point()]
    errors = {}
    with gradcam.Run(gradcam.Net(path)) as run:
        for k, x in enumerate(inputs):
            if f"x{k}" in run.net.inputs:
                run.set_input(f"x{k}", x.numpy())
        for name in leaves:
            run.watch(name)
        run.forward()
        errors["y"] = error(run.value("y"), want["y"])
        errors["act"] = error(run.value("act"), want["act"])
        run.backward("y", want["seed"].float().numpy())
        for name, gradient in zip(leaves, want["gradients"]):
            errors["grad " + name] = error(run.gradient(name), gradient)
        if want["cam"] is not None:
            options = {"kind": gradcam.CLASS, "index": CLASS, "output": "y"}
            cam = run.gradcam(layer="act", signed_map=1, **options)
            errors["map"] = error(cam, want["cam"], NOTHING * want["terms"])
    return errors


def bound(name):
    return OUTPUT_BOUND if name in ("y", "act") else GRADIENT_BOUND
