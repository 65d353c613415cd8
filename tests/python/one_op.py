# SPDX-License-Identifier: MIT
"""One operator against PyTorch: values, gradients, both memory layouts, threads."""

import os
import pathlib
import sys

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("GRADCAM_LIBRARY", str(ROOT / "build" / "libgradcam.so"))
sys.path.insert(0, str(ROOT / "bindings" / "python"))
import gradcam  # noqa: E402

NO_GRADIENT = -10


def build(op, inputs, data=(0,), opset=20, n_out=1, channels_last=False, **attributes):
    """A model of one node.  inputs[k] for k in data are graph inputs, the others
    initializers; None is absent.  channels_last puts a pooling of one pixel in
    front of input 0, whose result lies channels-last."""
    names = ["" if a is None else f"x{k}" for k, a in enumerate(inputs)]
    outputs = [f"y{k}" for k in range(n_out)]
    nodes, feeds, weights = [], [], []
    for k, a in enumerate(inputs):
        if a is None:
            continue
        if k in data:
            feeds.append(helper.make_tensor_value_info(names[k], helper.np_dtype_to_tensor_dtype(a.dtype), a.shape))
        else:
            weights.append(numpy_helper.from_array(a, names[k]))
    if channels_last:
        nodes.append(helper.make_node("MaxPool", ["x0"], ["pooled"], kernel_shape=[1] * (inputs[0].ndim - 2)))
        names[0] = "pooled"
    nodes.append(helper.make_node(op, names, outputs, **attributes))
    graph = helper.make_graph(nodes, "g", feeds,
                              [helper.make_tensor_value_info(y, TensorProto.UNDEFINED, None) for y in outputs], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def gradient(r, name, shape):
    """Zeros where the output does not depend on the input."""
    try:
        return r.gradient(name)
    except gradcam.GradcamError as error:
        if error.status != NO_GRADIENT:
            raise
        return np.zeros(shape, np.float32)


def run(model, inputs, data=(0,), grad_outputs=None, threads=1):
    """Outputs, and the gradients of the float inputs in `data`."""
    net = gradcam.Net(model.SerializeToString(), gradcam.Context(threads=threads))
    with gradcam.Run(net) as r:
        wanted = []
        for k in data:
            if inputs[k] is not None:
                r.set_input(f"x{k}", inputs[k])
                wanted += [f"x{k}"] if inputs[k].dtype == np.float32 else []
        for name in wanted if grad_outputs is not None else []:
            r.watch(name)
        r.forward()
        outputs = [r.value(name) for name in net.outputs]
        if grad_outputs is None:
            return outputs, []
        grads = {name: 0.0 for name in wanted}
        for name, dy in zip(net.outputs, grad_outputs):
            if dy is None:
                continue
            r.backward(name, dy)
            for x in wanted:
                grads[x] = grads[x] + gradient(r, x, inputs[int(x[1:])].shape)
        return outputs, [grads[name] for name in wanted]


def close(got, want, what, relative=1e-4):
    assert got.shape == tuple(want.shape), f"{what}: {got.shape} instead of {tuple(want.shape)}"
    if got.size == 0:
        return
    error, scale = np.abs(got.astype(np.float64) - want).max(), np.abs(want).max()
    assert error <= 1e-6 + relative * scale, f"{what}: {error:.2e} at a scale of {scale:.2e}"


def check(op, inputs, reference, data=(0,), what="", layouts=(False, True), threads=True, silent=(), **attributes):
    """Values and gradients equal those of `reference`, a function of tensors in
    float64 (inputs[k] for k in data); equal bits for one and three threads.
    No gradient comes from the `silent` outputs."""
    tensors = [torch.tensor(inputs[k], dtype=torch.float64 if inputs[k].dtype == np.float32 else None,
                            requires_grad=inputs[k].dtype == np.float32) for k in data]
    want = reference(*tensors)
    want = want if isinstance(want, tuple) else (want,)
    rng = np.random.default_rng(7)
    dys = [rng.standard_normal(tuple(w.shape)).astype(np.float32) if w.dtype == torch.float64 and k not in silent else None
           for k, w in enumerate(want)]
    loss = sum((w * torch.tensor(dy, dtype=torch.float64)).sum() for w, dy in zip(want, dys) if dy is not None)
    loss.backward()
    want_grads = [t.grad if t.grad is not None else torch.zeros_like(t) for t in tensors if t.requires_grad]
    for channels_last in layouts:
        if channels_last and (not 3 <= inputs[0].ndim <= 5 or 0 not in data):
            continue
        model = build(op, inputs, data, n_out=len(want), channels_last=channels_last, **attributes)
        got, grads = run(model, inputs, data, dys)
        where = f"{op} {what} {attributes} {'channels-last' if channels_last else ''}"
        for k, (g, w) in enumerate(zip(got, want)):
            if w.dtype != torch.float64:
                assert np.array_equal(g, w.detach().numpy()), f"{where}: output {k}"
            else:
                close(g, w.detach().numpy(), f"{where}: output {k}")
        for k, (g, w) in enumerate(zip(grads, want_grads)):
            close(g, w.numpy(), f"{where}: gradient {k}")
        if threads:
            again, grads3 = run(model, inputs, data, dys, threads=3)
            for a, b in zip(got + grads, again + grads3):
                assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), f"{where}: the number of threads shows"


def refused(op, inputs, words, data=(0,), **attributes):
    """The model is refused with a message that holds `words`."""
    try:
        run(build(op, inputs, data, **attributes), inputs, data)
    except gradcam.GradcamError as error:
        assert words in str(error), str(error)
        return
    raise AssertionError(f"{op} {attributes} was accepted")
