# SPDX-License-Identifier: MIT
"""Resize against torch.nn.functional.interpolate and its own definition."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from one_op import build, check, refused, run

RNG = np.random.default_rng(1)


def image(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def sizes(x, out):
    return [x, None, None, np.array([*x.shape[:2], *out], np.int64)]


SHAPES = [((2, 3, 5), (9,)), ((1, 4, 5, 7), (10, 14)), ((2, 3, 9, 8), (4, 11)), ((1, 1, 6, 6), (1, 13)),
          ((2, 40, 7, 7), (14, 21)), ((1, 2, 3, 4, 5), (6, 3, 11))]
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@pytest.mark.parametrize("shape,out", SHAPES)
def test_nearest(shape, out):
    x = image(*shape)
    check("Resize", sizes(x, out), lambda t: F.interpolate(t, out), mode="nearest",
          coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    check("Resize", sizes(x, out), lambda t: F.interpolate(t, out, mode="nearest-exact"), mode="nearest",
          coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_ceil")


@pytest.mark.parametrize("shape,out", SHAPES)
@pytest.mark.parametrize("align", [False, True])
def test_linear(shape, out, align):
    x = image(*shape)
    check("Resize", sizes(x, out), lambda t: F.interpolate(t, out, mode=LINEAR[len(out)], align_corners=align),
          mode="linear", coordinate_transformation_mode="align_corners" if align else "half_pixel")


@pytest.mark.parametrize("shape,out", [s for s in SHAPES if len(s[1]) == 2])
@pytest.mark.parametrize("align", [False, True])
def test_cubic(shape, out, align):
    x = image(*shape)
    check("Resize", sizes(x, out), lambda t: F.interpolate(t, out, mode="bicubic", align_corners=align), mode="cubic",
          coordinate_transformation_mode="align_corners" if align else "half_pixel")


@pytest.mark.parametrize("mode,name,a", [("linear", "bilinear", 0.0), ("cubic", "bicubic", -0.5)])
def test_antialias(mode, name, a):
    x = image(1, 3, 16, 23)
    attributes = {"cubic_coeff_a": a} if a else {}
    check("Resize", sizes(x, (5, 9)), lambda t: F.interpolate(t, (5, 9), mode=name, antialias=True), mode=mode,
          antialias=1, exclude_outside=1, **attributes)


def matrix(n, out, scale, begin, end):
    """tf_crop_and_resize of one axis, linear, and whether each output is outside."""
    m, outside = np.zeros((out, n)), np.zeros(out, bool)
    for o in range(out):
        x = begin * (n - 1) + (o * (end - begin) * (n - 1) / (out - 1) if out > 1 else (end - begin) * (n - 1) / 2)
        outside[o] = x < 0 or x > n - 1
        low = int(np.floor(x))
        for k, w in ((low, 1 - (x - low)), (low + 1, x - low)):
            m[o, min(max(k, 0), n - 1)] += 0 if outside[o] else w
    return torch.tensor(m), torch.tensor(outside)


@pytest.mark.parametrize("roi", [(0.125, 0.25, 0.75, 1.0), (-0.375, 0.5, 0.875, 1.4375), (0.875, 0.0, 0.125, 1.0)])
def test_crop_and_resize(roi):
    x = image(2, 3, 7, 6)
    (mh, oh), (mw, ow) = matrix(7, 5, 0, roi[0], roi[2]), matrix(6, 9, 0, roi[1], roi[3])

    def reference(t):
        y = torch.einsum("oh,nchw,pw->ncop", mh, t, mw)
        return torch.where(oh[:, None] | ow[None, :], torch.tensor(2.5, dtype=torch.float64), y)

    inputs = [x, np.array(roi, np.float32), None, np.array([5, 9], np.int64)]
    check("Resize", inputs, reference, mode="linear", axes=[2, 3], extrapolation_value=2.5,
          coordinate_transformation_mode="tf_crop_and_resize")


def test_every_axis_and_one_alone():
    x = image(4, 3, 6, 5)
    out = np.array([3, 5, 4, 11], np.int64)

    def reference(t):
        for axis, n in enumerate(out):
            moved = t.movedim(axis, -1)
            flat = F.interpolate(moved.reshape(1, -1, moved.shape[-1]), int(n), mode="linear")
            t = flat.reshape(*moved.shape[:-1], int(n)).movedim(-1, axis)
        return t

    check("Resize", [x, None, None, out], reference, mode="linear")
    check("Resize", [x, None, None, np.array([7], np.int64)], lambda t: F.interpolate(
        t.movedim(1, -1).reshape(1, -1, 3), 7, mode="linear").reshape(4, 6, 5, 7).movedim(-1, 1), mode="linear",
          axes=[-3])


def test_low_ranks_and_no_change():
    x = image(7)
    check("Resize", [x, None, np.array([2.0], np.float32)],
          lambda t: F.interpolate(t[None, None], 14, mode="linear")[0, 0], mode="linear")
    x = image(2, 3, 4, 4)
    check("Resize", [x, None, np.ones(4, np.float32)], lambda t: t * 1, mode="cubic")
    empty = np.zeros((0, 3, 4, 4), np.float32)
    (y,), (g,) = run(build("Resize", sizes(empty, (8, 8)), mode="linear"), [empty], grad_outputs=[
        np.zeros((0, 3, 8, 8), np.float32)])
    assert y.shape == (0, 3, 8, 8) and g.shape == empty.shape


def test_half_pixel_symmetric_keeps_the_centre():
    # 2.4 of 5: 12 pixels without a rest; 0.75 of 5 leaves 3 of 3.75 pixels
    x = np.arange(5, dtype=np.float32)[None, None]
    y, _ = run(build("Resize", [x, None, np.array([0.75], np.float32)], mode="linear", axes=[2], opset=19,
                     coordinate_transformation_mode="half_pixel_symmetric"), [x])
    assert y[0].shape == (1, 1, 3) and abs(y[0].mean() - 2.0) < 1e-6


def test_keep_aspect_ratio():
    x = image(1, 2, 6, 8)
    for policy, out in (("not_larger", (7, 9)), ("not_smaller", (12, 16))):
        y, _ = run(build("Resize", [x, None, None, np.array([12, 9], np.int64)], axes=[2, 3], mode="linear",
                         keep_aspect_ratio_policy=policy), [x])
        assert y[0].shape[2:] == out


def test_refusals():
    x = image(1, 1, 4, 4)
    refused("Resize", sizes(x, (8, 8)), "unknown mode", mode="spline")
    refused("Resize", [x, None, np.array([1, 1, 0, 2], np.float32)], "scale 0")
    refused("Resize", [x, None, None, np.array([8, 8], np.int64)], "sizes")
    refused("Resize", [x, None, None, np.array([8, 8], np.int64)], "named twice", axes=[2, -2])
    refused("Resize", [x, None, None, None], "neither")
    refused("Resize", [x, None, np.array([1, 1, 1e9, 1e9], np.float32)], "cannot become")
    refused("Resize", sizes(x, (8, 8)), "input 1", coordinate_transformation_mode="tf_crop_and_resize")
    refused("Upsample", [x, np.array([1, 1, 0.5, 2], np.float32)], "scale 0.5", opset=9)
