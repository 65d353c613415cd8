# SPDX-License-Identifier: MIT
"""Reading and comparing golden tensors; one export of the zoo from end to end."""

import json
import os
import pathlib
import sys

import numpy as np
import onnx
from onnx import numpy_helper

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
ZOO = SHARED / "onnx" / "zoo.tar.xz"
os.environ.setdefault("GRADCAM_LIBRARY", str(ROOT / "build" / "libgradcam.so"))
sys.path.insert(0, str(ROOT / "bindings" / "python"))
import gradcam  # noqa: E402

BOUND = 1e-4  # relative to the largest element, as the zoo's own deviation is 3e-7


def parse(data):
    tensor = onnx.TensorProto()
    tensor.ParseFromString(data)
    return numpy_helper.to_array(tensor)


def read(path):
    return parse(path.read_bytes())


def close(got, want, what):
    assert got.shape == want.shape, what
    error = np.abs(got.astype(np.float64) - want).max() / max(np.abs(want).max(), 1e-30)
    assert error <= BOUND, f"{what}: {error:.1e}"


def check_layer(run, folder, k, name, meta):
    close(run.value(name), read(folder / f"act_{k}.pb"), f"activation of {name}")
    close(run.gradient(name), read(folder / f"dact_{k}.pb"), f"gradient of {name}")
    golden = folder / f"gradcam_{k}.pb"
    if golden.exists():
        want = read(golden)
        got = run.gradcam(layer=name, kind=gradcam.ELEMENT, index=meta["cls"], output=run.net.outputs[0])
        close(got.reshape(want.shape), want, f"Grad-CAM at {name}")


def check_export(folder):
    meta = json.loads((folder / "meta.json").read_text())
    net = gradcam.Net(folder / "model.onnx")
    with gradcam.Run(net) as run:
        for k, name in enumerate(net.inputs):
            run.set_input(name, read(folder / f"input_{k}.pb"))
        wanted = {name: folder / f"dx_{k}.pb" for k, name in enumerate(net.inputs)}
        wanted = {name: path for name, path in wanted.items() if path.exists()}
        for name in [*wanted, *meta["targets"]]:
            run.watch(name)
        run.forward()
        output = run.value(net.outputs[0])
        close(output, read(folder / "output_0.pb"), "output")
        seed = np.zeros(output.shape, np.float32)
        seed.reshape(-1)[meta["cls"]] = 1
        run.backward(net.outputs[0], seed)
        for name, path in wanted.items():
            close(run.gradient(name), read(path), f"gradient of {name}")
        for k, name in enumerate(meta["targets"]):
            check_layer(run, folder, k, name, meta)
