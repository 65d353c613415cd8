# SPDX-License-Identifier: MIT
"""GridSample and AffineGrid against torch.nn.functional."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from one_op import build, check, refused, run

RNG = np.random.default_rng(3)
MODES = {"linear": "bilinear", "nearest": "nearest", "cubic": "bicubic"}


def image(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def grid(*shape):
    return RNG.uniform(-1.6, 1.6, shape).astype(np.float32)


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", MODES)
def test_plane(mode, padding, align):
    for channels, size in ((3, (5, 7)), (37, (1, 4))):
        check("GridSample", [image(2, channels, *size), grid(2, 6, 15, 2)],
              lambda x, g: F.grid_sample(x, g, MODES[mode], padding, bool(align)), data=(0, 1), mode=mode,
              padding_mode=padding, align_corners=align)


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_volume(mode, padding, align):
    check("GridSample", [image(2, 3, 4, 5, 6), grid(2, 3, 5, 4, 3)],
          lambda x, g: F.grid_sample(x, g, MODES[mode], padding, bool(align)), data=(0, 1), mode=mode,
          padding_mode=padding, align_corners=align)


def test_line_and_opset_16_names():
    check("GridSample", [image(2, 3, 9), grid(2, 11, 1)], lambda x, g: F.grid_sample(
        x[:, :, None], torch.stack([g[:, None, :, 0], 0 * g[:, None, :, 0]], -1), align_corners=False)[:, :, 0],
        data=(0, 1), mode="linear")
    for name in ("bilinear", "nearest", "bicubic"):
        check("GridSample", [image(1, 2, 5, 4), grid(1, 3, 3, 2)],
              lambda x, g, m=name: F.grid_sample(x, g, m, align_corners=False), data=(0, 1), opset=16, mode=name)


def test_constant_grid():
    g = grid(1, 4, 4, 2)
    check("GridSample", [image(1, 2, 5, 5), g],
          lambda x: F.grid_sample(x, torch.tensor(g, dtype=torch.float64), align_corners=False), mode="linear")


def test_coordinates_that_are_no_numbers():
    g = np.array([np.nan, np.inf, -np.inf, 1e30], np.float32).reshape(1, 1, 2, 2)
    for padding in ("zeros", "border", "reflection"):
        for mode in MODES:
            (y,), _ = run(build("GridSample", [image(1, 1, 4, 4), g], data=(0, 1), mode=mode, padding_mode=padding),
                          [image(1, 1, 4, 4), g], data=(0, 1))
            assert np.isfinite(y).all()


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 5, 6), (1, 1, 1, 4), (2, 3, 2, 5, 6)])
def test_affine(size, align):
    rank = len(size) - 2
    check("AffineGrid", [image(size[0], rank, rank + 1), np.array(size, np.int64)],
          lambda t: F.affine_grid(t, list(size), bool(align)), align_corners=align)


def test_refusals():
    x = image(1, 1, 4, 4)
    refused("GridSample", [x, grid(1, 2, 2, 3)], "does not fit", data=(0, 1))
    refused("GridSample", [x, grid(2, 2, 2, 2)], "does not fit", data=(0, 1))
    refused("GridSample", [x, grid(1, 2, 2, 2)], "unknown mode", data=(0, 1), mode="lanczos")
    refused("AffineGrid", [image(1, 2, 3), np.array([2, 1, 3, 3], np.int64)], "theta")
