# SPDX-License-Identifier: MIT
"""Deformable convolution, and the operators that carry a state or cache, against torch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from one_op import check, refused

RNG = np.random.default_rng(10)


def image(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def deformed(x, w, offset, bias, mask, groups, offset_groups, stride, padding, dilation):
    """Every tap by grid_sample, then a convolution of the taps by einsum."""
    n, c, height, width = x.shape
    out_c, in_g, kh, kw = w.shape
    oh, ow = offset.shape[2:]
    offset = offset.reshape(n, offset_groups, kh * kw, 2, oh, ow)
    columns = []
    for tap in range(kh * kw):
        base_y = torch.arange(oh)[:, None] * stride - padding + tap // kw * dilation
        base_x = torch.arange(ow)[None] * stride - padding + tap % kw * dilation
        parts = []
        for og, part in enumerate(x.chunk(offset_groups, 1)):
            y, z = base_y + offset[:, og, tap, 0], base_x + offset[:, og, tap, 1]
            grid = torch.stack([2 * z / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
            part = F.grid_sample(part, grid, align_corners=True)
            if mask is not None:
                part = part * mask.reshape(n, offset_groups, kh * kw, oh, ow)[:, og, None, tap]
            parts.append(part)
        columns.append(torch.cat(parts, 1))
    columns = torch.stack(columns, 2).reshape(n, groups, in_g, kh * kw, oh, ow)
    w = w.reshape(groups, out_c // groups, in_g, kh * kw)
    y = torch.einsum("ngitab,goit->ngoab", columns, w).reshape(n, out_c, oh, ow)
    return y if bias is None else y + bias[:, None, None]


@pytest.mark.parametrize("groups,offset_groups", [(1, 1), (2, 1), (1, 3), (2, 3)])
@pytest.mark.parametrize("stride,padding,dilation", [(1, 1, 1), (2, 0, 1), (1, 2, 2)])
def test_deform_conv(groups, offset_groups, stride, padding, dilation):
    x, w = image(2, 6, 7, 6), image(4, 6 // groups, 3, 2)
    oh, ow = [(n + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for n, k in ((7, 3), (6, 2))]
    offset, mask = 1.5 * image(2, 12 * offset_groups, oh, ow), image(2, 6 * offset_groups, oh, ow)
    attributes = {"group": groups, "offset_group": offset_groups, "strides": [stride] * 2, "pads": [padding] * 4,
                  "dilations": [dilation] * 2}
    rest = (groups, offset_groups, stride, padding, dilation)
    check("DeformConv", [x, w, offset, image(4), mask], lambda *t: deformed(*t, *rest), data=(0, 1, 2, 3, 4),
          **attributes)
    fixed = [torch.tensor(a, dtype=torch.float64) for a in (w, offset)]
    check("DeformConv", [x, w, offset], lambda t: deformed(t, *fixed, None, None, *rest), **attributes)


def test_deform_conv_in_blocks():
    """More rows than one block of columns holds."""
    x, w, offset = image(1, 40, 30, 30), image(3, 40, 3, 3), image(1, 18, 28, 28)
    check("DeformConv", [x, w, offset], lambda a, b, c: deformed(a, b, c, None, None, 1, 1, 1, 0, 1), data=(0, 1, 2))


@pytest.mark.parametrize("activation", ["none", "silu"])
@pytest.mark.parametrize("length,taps", [(8, 4), (2, 4), (5, 1)])
def test_causal_conv(activation, length, taps):
    def reference(x, w, bias, past):
        p = torch.cat([past, x], 2)
        y = F.conv1d(p, w, bias, groups=3)
        return (F.silu(y) if activation == "silu" else y), p[:, :, p.shape[2] - taps + 1:]

    check("CausalConvWithState", [image(2, 3, length), image(3, 1, taps), image(3), image(2, 3, taps - 1)], reference,
          data=(0, 1, 2, 3), layouts=(False,), opset=27, activation=activation)


@pytest.mark.parametrize("mode,first", [("linear", (0, 3)), ("circular", (4, 13)), ("linear", None)])
def test_tensor_scatter(mode, first):
    def reference(past, update):
        y = past.clone()
        for b in range(2):
            at = (torch.arange(2) + (0 if first is None else first[b])) % 5
            y[b, :, at] = update[b]
        return y

    places = None if first is None else np.array(first, np.int64)
    check("TensorScatter", [image(2, 3, 5, 4), image(2, 3, 2, 4), places], reference, data=(0, 1), opset=24, mode=mode,
          layouts=(False,))


def test_refusals():
    x = image(1, 2, 4, 4)
    refused("DeformConv", [x, image(2, 2, 3, 3), image(1, 17, 2, 2)], "input 2")
    refused("DeformConv", [x, image(2, 1, 3, 3), image(1, 18, 2, 2)], "do not fit")
    refused("TensorScatter", [x, image(1, 2, 2, 4), np.array([3])], "written at 3", opset=24)
    refused("TensorScatter", [x, image(1, 2, 5, 4)], "does not fit", opset=24)
    refused("CausalConvWithState", [image(1, 2, 4), image(2, 1, 3), None, image(1, 2, 3)], "past state", opset=27)
