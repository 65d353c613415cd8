# SPDX-License-Identifier: MIT
"""RoiAlign and MaxRoiPool against their definitions written with torch."""

import numpy as np
import pytest
import torch
from one_op import check, refused

RNG = np.random.default_rng(6)


def image(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def neighbours(at, size):
    if at < -1 or at > size:
        return []
    at = max(at, 0.0)
    low = min(int(at), size - 1)
    return [(low, 1.0)] if low == size - 1 else [(low, 1 - (at - low)), (low + 1, at - low)]


def align(t, boxes, batch, out, scale, ratio, half, mode):
    """[R, C, *out]; mode max takes the largest weighted neighbour, as ONNX says."""
    offset, rows = 0.5 if half else 0.0, []
    for box, n in zip(boxes.astype(np.float64), batch):
        x0, y0, x1, y1 = box * scale - offset
        h, w = y1 - y0, x1 - x0
        if not half:
            h, w = max(h, 1.0), max(w, 1.0)
        ny, nx = [ratio or int(np.ceil(e / o)) for e, o in zip((h, w), out)]
        cells = []
        for py in range(out[0]):
            for px in range(out[1]):
                values = [torch.zeros(t.shape[1], dtype=t.dtype)]
                for iy in range(ny):
                    for ix in range(nx):
                        y = y0 + (py + (iy + 0.5) / ny) * h / out[0]
                        x = x0 + (px + (ix + 0.5) / nx) * w / out[1]
                        values += [wy * wx * t[n, :, ky, kx] for ky, wy in neighbours(y, t.shape[2])
                                   for kx, wx in neighbours(x, t.shape[3])]
                values = torch.stack(values)
                cells.append(values.sum(0) / max(ny * nx, 1) if mode == "avg" else values[1:].amax(0))
        rows.append(torch.stack(cells, 1).reshape(-1, *out))
    return torch.stack(rows)


BOXES = np.array([[1.3, 0.4, 11.2, 13.9], [4.0, 6.0, 5.1, 6.2], [0.2, 3.0, 17.8, 15.5]], np.float32)
BATCH = np.array([0, 1, 1], np.int64)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_average(half, ratio):
    check("RoiAlign", [image(2, 35, 8, 9), BOXES, BATCH],
          lambda t: align(t, BOXES, BATCH, (3, 2), 0.5, ratio, half, "avg"),
          output_height=3, output_width=2, spatial_scale=0.5, sampling_ratio=ratio,
          coordinate_transformation_mode="half_pixel" if half else "output_half_pixel")


def test_max():
    boxes = np.array([[1.3, 0.4, 11.2, 13.9], [0.2, 3.0, 14.8, 12.5]], np.float32)
    batch = np.array([0, 1], np.int64)
    x = np.abs(image(2, 3, 8, 9)) + 0.1
    check("RoiAlign", [x, boxes, batch], lambda t: align(t, boxes, batch, (3, 2), 0.5, 2, True, "max"), mode="max",
          output_height=3, output_width=2, spatial_scale=0.5, sampling_ratio=2)


def test_opset_10_has_no_half_pixel():
    check("RoiAlign", [image(2, 3, 8, 9), BOXES, BATCH], lambda t: align(t, BOXES, BATCH, (2, 2), 0.5, 2, False, "avg"),
          opset=10, output_height=2, output_width=2, spatial_scale=0.5, sampling_ratio=2)


def pool(t, boxes, out, scale):
    rows = []
    for n, *box in boxes.astype(np.float64):
        x0, y0, x1, y1 = np.floor(np.array(box) * scale + 0.5)
        h, w = max(y1 - y0 + 1, 1), max(x1 - x0 + 1, 1)
        cells = []
        for py in range(out[0]):
            for px in range(out[1]):
                ya, yb = [int(np.clip(v, 0, t.shape[2])) for v in (np.floor(py * h / out[0]) + y0,
                                                                   np.ceil((py + 1) * h / out[0]) + y0)]
                xa, xb = [int(np.clip(v, 0, t.shape[3])) for v in (np.floor(px * w / out[1]) + x0,
                                                                   np.ceil((px + 1) * w / out[1]) + x0)]
                cell = t[int(n), :, ya:yb, xa:xb].flatten(1)
                cells.append(cell.amax(1) if cell.numel() else torch.zeros(t.shape[1], dtype=t.dtype))
        rows.append(torch.stack(cells, 1).reshape(-1, *out))
    return torch.stack(rows)


def test_max_roi_pool():
    boxes = np.array([[0, 1, 2, 9, 12], [1, 0, 0, 17, 15], [1, 20, 20, 30, 30], [0, 8, 3, 8, 3]], np.float32)
    check("MaxRoiPool", [image(2, 35, 8, 9), boxes], lambda t: pool(t, boxes, (3, 4), 0.5), pooled_shape=[3, 4],
          spatial_scale=0.5)


def test_refusals():
    x, one = image(1, 1, 4, 4), np.array([1], np.int64)
    box = np.array([[0, 0, 2, 2]], np.float32)
    refused("RoiAlign", [x, box, one], "box 0")
    refused("RoiAlign", [x, box * np.float32(1e9), 0 * one], "box 0")
    refused("RoiAlign", [x, box * np.float32(np.nan), 0 * one], "box 0")
    refused("RoiAlign", [x, box, 0 * one], "unknown mode", mode="median")
    refused("RoiAlign", [x, box, np.array([0, 0], np.int64)], "one for each box")
    refused("MaxRoiPool", [x, box], "boxes [R, 5]", pooled_shape=[2, 2])
