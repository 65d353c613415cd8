# SPDX-License-Identifier: MIT
"""Really trained networks: another runtime's outputs, and where they look."""

import os
import pathlib
import sys

import numpy as np
import pytest
from PIL import Image

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


def open_model(model, x):
    run = gradcam.Run(gradcam.Net(SHARED / "models" / f"{model}.onnx"))
    run.set_input(None, np.ascontiguousarray(x, np.float32))
    return run


def picture(name, side):
    """[side, side, 3] of 0..255: the middle square, resized."""
    image = Image.open(SHARED / "images" / name).convert("RGB")
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    square = image.crop((left, top, left + edge, top + edge))
    return np.asarray(square.resize((side, side), Image.BILINEAR), np.float32)


def planes(pixels):
    return np.moveaxis(pixels, -1, 0)[None]


def face():
    grey = np.asarray(Image.open(SHARED / "images" / "happy_face_64.png").convert("L"), np.float32)
    return ((grey / 255 - 0.5) * 2)[None, None]


def cifar(count=None):
    records = np.fromfile(SHARED / "images" / "cifar10_test_242.bin", np.uint8).reshape(-1, 3073)[:count]
    return records[:, 0], records[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32)


def cat_dog(kind, side):
    return np.fromfile(SHARED / "refs" / f"in_cat_dog_{kind}.f32", np.float32).reshape(1, 3, side, side)


# Networks that end in a pooling over the whole map, with or without a classifier behind it.
POOLING = {
    "squeezenet1.0_imagenet": lambda: cat_dog("224_caffe", 224),
    "squeezenet1.1_imagenet_fp16": lambda: cat_dog("224_caffe", 224),
    "tiny_darknet_imagenet": lambda: cat_dog("224_u01", 224),
    "mobilenet_v1_0.25_128_imagenet": lambda: cat_dog("128_unit", 128),
    "mobilenet_v2_1.0_224_imagenet": lambda: cat_dog("224_unit", 224),
    "mobilenet_v2_0.35_128_flowers": lambda: planes(picture("sunflower.bmp", 128)) / 127.5 - 1,
    "fer2013_mini_xception": face,
    "resnet8_cifar10": lambda: cifar(1)[1],
}


@pytest.mark.parametrize("model", POOLING)
def test_gradcam_is_cam_over_z(model):
    """Selvaraju 2017, section 3.1: on pooling networks Grad-CAM = ReLU(CAM) / Z."""
    with open_model(model, POOLING[model]()) as run:
        cam, gradcam_map = run.cam(), run.gradcam()
    want = np.maximum(cam, 0) / cam[0].size
    assert want.any() and np.abs(gradcam_map - want).max() <= 1e-6 * np.abs(want).max()


# ---- predictions that the folder's README tells ----


def scores(model, x):
    with open_model(model, x) as run:
        run.forward()
        return run.value(run.net.outputs[0]).reshape(len(x), -1)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def class_of(word, file="imagenet1000.txt"):
    lines = (SHARED / "labels" / file).read_text().splitlines()
    return next(i for i, line in enumerate(lines) if word in line)


@pytest.mark.parametrize("model,word,share", [
    ("squeezenet1.0_imagenet", "bull mastiff", 0.274), ("squeezenet1.0_imagenet", "tiger cat", 0.265),
    ("squeezenet1.0_imagenet", "boxer", 0.153), ("squeezenet1.1_imagenet_fp16", "bull mastiff", 0.79)])
def test_squeezenet_predicts(model, word, share):
    probability = scores(model, cat_dog("224_caffe", 224))[0]
    assert abs(probability[class_of(word)] - share) < (6e-3 if "fp16" in model else 6e-4)


def test_mobilenet_v1_sees_the_cat():
    assert scores("mobilenet_v1_0.25_128_imagenet", cat_dog("128_unit", 128))[0].argmax() == class_of(
        "tiger cat", "imagenet1001_tf.txt")


def test_flowers_and_faces():
    flower = scores("mobilenet_v2_0.35_128_flowers", planes(picture("sunflower.bmp", 128)) / 127.5 - 1)[0]
    assert flower.argmax() == class_of("sunflower", "flowers5.txt") and flower.max() > 0.97
    assert abs(scores("fer2013_mini_xception", face())[0].max() - 0.998) < 1e-3


def test_segments_cat_and_dog():
    """Classes 8 and 12 of VOC: shares of the stretched picture, and they lie where cat and dog are."""
    whole = Image.open(SHARED / "images" / "cat_dog.jpg").convert("RGB").resize((513, 513), Image.BICUBIC)
    with open_model("deeplabv3_mnv2_pascal", planes(np.asarray(whole, np.float32)) / 127.5 - 1) as run:
        run.forward()
        found = run.value(run.net.outputs[0])[0].argmax(0)
    for index, word, share in ((8, "tiger cat", 0.10), (12, "boxer", 0.22)):
        assert abs((found == index).mean() - share) < 0.005
        y, x = np.mean(np.nonzero(found == index), axis=1) * (480 / 513, 640 / 513)
        top, left, bottom, right = BOXES[word]  # of the middle square, 480 pixels wide
        assert top <= y * 224 / 480 <= bottom and left <= (x - 80) * 224 / 480 <= right


def test_digits_and_objects():
    labels, x = cifar()
    right = [scores("resnet8_cifar10", x[i:i + 1])[0].argmax() == label for i, label in enumerate(labels)]
    assert abs(np.mean(right) - 0.909) < 0.0005
    records = np.fromfile(SHARED / "images" / "mnist_124.bin", np.uint8).reshape(-1, 785)
    right = [scores("mnist_cntk", r[1:].reshape(1, 1, 28, 28))[0].argmax() == r[0] for r in records]
    assert abs(np.mean(right) - 0.992) < 0.0005


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
