# SPDX-License-Identifier: MIT
"""Pad and CenterCropPad against indexing and torch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from one_op import build, check, refused, run

RNG = np.random.default_rng(2)
MODES = {"constant": "constant", "edge": "edge", "reflect": "reflect", "wrap": "wrap"}


def image(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def padded(t, pads, mode, value=0.0):
    """numpy.pad by gathering, so that autograd follows; negative pads crop."""
    n = t.ndim
    for d in range(n):
        before, after = int(pads[d]), int(pads[n + d])
        index = np.pad(np.arange(t.shape[d]), (max(before, 0), max(after, 0)), mode=mode,
                       **({"constant_values": -1} if mode == "constant" else {}))
        index = index[max(-before, 0):len(index) - max(-after, 0)]
        shape = [-1 if k == d else 1 for k in range(n)]
        mask = torch.tensor(index >= 0).reshape(shape)
        taken = t.index_select(d, torch.tensor(np.maximum(index, 0)))
        t = torch.where(mask, taken, torch.as_tensor(value, dtype=t.dtype))
    return t


CASES = [((2, 3, 4, 5), [0, 0, 1, 2, 0, 0, 3, 1]), ((2, 3, 4, 5), [1, 0, -1, 2, 0, 2, 3, -2]),
         ((1, 2, 6), [0, 0, 2, 0, 0, -3]), ((7,), [4, 5]), ((2, 2, 3, 3, 3), [0, 0, 1, 1, 1, 0, 0, 2, 0, -1])]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape,pads", CASES)
def test_modes(mode, shape, pads):
    x = image(*shape)
    pads = np.array(pads, np.int64)
    check("Pad", [x, pads], lambda t: padded(t, pads, mode), mode=mode)


def test_far_reflection_and_wrapping():
    x = image(1, 1, 3, 2)
    pads = np.array([0, 0, 7, 5, 0, 0, 8, 9], np.int64)
    for mode in ("reflect", "wrap", "edge"):
        check("Pad", [x, pads], lambda t, m=mode: padded(t, pads, m), mode=mode)


def test_axes_and_value():
    x, value = image(2, 3, 4), np.float32(1.5)
    check("Pad", [x, np.array([1, 2, 3, -1], np.int64), np.array(value), np.array([-1, 0], np.int64)],
          lambda t, v: padded(t, [2, 0, 1, -1, 0, 3], "constant", v), data=(0, 2))
    check("Pad", [x], lambda t: F.pad(t, (1, 1), value=2.0), opset=6, pads=[0, 0, 1, 0, 0, 1], value=2.0)


def test_integers():
    x = RNG.integers(0, 9, (2, 3, 4))
    for dtype in (np.int64, np.int32, np.uint8, np.bool_):
        (y,), _ = run(build("Pad", [x.astype(dtype), np.array([0, 1, 1, 0, 0, 2], np.int64)]), [x.astype(dtype)])
        assert y.dtype == dtype and np.array_equal(y, np.pad(x.astype(dtype), ((0, 0), (1, 0), (1, 2))))


@pytest.mark.parametrize("shape,axes,target", [((5, 8, 3), None, (4, 11, 3)), ((2, 3, 7, 6), (2, 3), (4, 9)),
                                               ((2, 3, 7, 6), (-1, -2), (8, 3)), ((1, 5), (1,), (0,))])
def test_centre(shape, axes, target):
    x = image(*shape)
    pads = np.zeros(2 * x.ndim, int)
    for d, n in zip(axes or range(x.ndim), target):
        more = n - x.shape[d]
        pads[d] = int(more / 2)  # towards zero: an odd rest is at the end
        pads[d + x.ndim if d >= 0 else d] = more - int(more / 2)
        if d < 0:
            pads[d], pads[d - x.ndim] = more - int(more / 2), int(more / 2)
    attributes = {"axes": list(axes)} if axes else {}
    check("CenterCropPad", [x, np.array(target, np.int64)], lambda t: padded(t, pads, "constant"), **attributes)


def test_refusals():
    x = image(2, 3)
    refused("Pad", [x, np.array([1, 1], np.int64)], "two entries")
    refused("Pad", [x, np.array([1, 1, 1, 1], np.int64)], "unknown mode", mode="mirror")
    refused("Pad", [x, np.array([-3, 0, 0, 0], np.int64)], "cannot be padded")
    refused("Pad", [x, np.array([2**62, 0, 2**62, 0], np.int64)], "so far")
    refused("Pad", [x, np.array([1, 1, 1, 1], np.int64), None, np.array([1, 1], np.int64)], "named twice")
    refused("CenterCropPad", [x, np.array([2, 3, 4], np.int64)], "one entry")
