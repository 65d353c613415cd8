# SPDX-License-Identifier: MIT
"""Really trained networks: another runtime's outputs, and where they look."""

import os
import pathlib
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("GRADCAM_LIBRARY", str(ROOT / "build" / "libgradcam.so"))
sys.path.insert(0, str(ROOT / "bindings" / "python"))
import gradcam  # noqa: E402

SHARED = ROOT.parent / "shared"
pytestmark = pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="the networks are not beside the project")

# model, input, side, reference, bound: relative to the largest output
KNOWN = [
    ("squeezenet1.0_imagenet", "224_caffe", 224, 1e-4),
    ("squeezenet1.1_imagenet_fp16", "224_caffe", 224, 2e-3),
    ("tiny_darknet_imagenet", "224_u01", 224, 1e-4),
    ("mobilenet_v1_0.25_128_imagenet", "128_unit", 128, 1e-4),
    ("mobilenet_v2_1.0_224_imagenet", "224_unit", 224, 1e-4),
]


def start(model, image, side):
    run = gradcam.Run(gradcam.Net(SHARED / "models" / f"{model}.onnx"))
    pixels = np.fromfile(SHARED / "refs" / f"in_cat_dog_{image}.f32", np.float32)
    run.set_input(None, pixels.reshape(1, 3, side, side))
    return run


@pytest.mark.parametrize("model,image,side,bound", KNOWN)
def test_outputs(model, image, side, bound):
    with start(model, image, side) as run:
        run.forward()
        got = run.value(run.net.outputs[0]).reshape(-1)
    want = np.fromfile(SHARED / "refs" / f"out_{model.removesuffix('_fp16')}.f32", np.float32)
    assert np.abs(got - want).max() <= bound * np.abs(want).max()


def test_every_network_loads():
    models = sorted((SHARED / "models").glob("*.onnx"))
    assert len(models) == 12
    for path in models:
        gradcam.Net(path)


@pytest.mark.parametrize("model", ["squeezenet1.0_imagenet", "tiny_darknet_imagenet"])
def test_gradcam_is_cam_over_z(model):
    """Selvaraju 2017, section 3.1: on pooling networks Grad-CAM = ReLU(CAM) / Z."""
    with start(model, *(("224_caffe", 224) if "squeeze" in model else ("224_u01", 224))) as run:
        cam, gradcam_map = run.cam(), run.gradcam()
    want = np.maximum(cam, 0) / cam[0].size
    assert np.abs(gradcam_map - want).max() <= 1e-6 * np.abs(want).max()


# Boxes drawn by hand on the 224x224 picture: top, left, bottom, right.
BOXES = {"tiger cat": (118, 40, 222, 200), "boxer": (12, 65, 140, 180)}


@pytest.mark.parametrize("word", BOXES)
def test_cat_and_dog(word):
    """The paper's own example: "tiger cat" lights the cat, "boxer" the dog."""
    labels = (SHARED / "labels" / "imagenet1000.txt").read_text().splitlines()
    index = next(i for i, line in enumerate(labels) if word in line)
    with start("squeezenet1.0_imagenet", "224_caffe", 224) as run:
        cam = run.gradcam(kind=gradcam.CLASS, index=index)[0]
    row, column = np.unravel_index(cam.argmax(), cam.shape)
    y, x = (row + 0.5) * 224 / cam.shape[0], (column + 0.5) * 224 / cam.shape[1]
    top, left, bottom, right = BOXES[word]
    assert top <= y <= bottom and left <= x <= right


@pytest.mark.parametrize("word", BOXES)
def test_guided_gradcam_of_cat_and_dog(word):
    labels = (SHARED / "labels" / "imagenet1000.txt").read_text().splitlines()
    index = next(i for i, line in enumerate(labels) if word in line)
    with start("squeezenet1.0_imagenet", "224_caffe", 224) as run:
        strength = np.abs(run.guided_gradcam(kind=gradcam.CLASS, index=index)[0]).sum(axis=0)
    y, x = np.unravel_index(strength.argmax(), strength.shape)
    top, left, bottom, right = BOXES[word]
    assert top <= y <= bottom and left <= x <= right
    assert strength[top:bottom, left:right].sum() >= 0.7 * strength.sum()
