# SPDX-License-Identifier: MIT
"""Convolutions whose weights and bias are computed values: all gradients; and maps to few channels, which are made in
bands of the image."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from one_op import build, check, run

RNG = np.random.default_rng(5)


def image(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


CASES = [((2, 4, 9), (6, 2, 3), 2, 2, 1, 1), ((2, 6, 7, 8), (8, 6, 3, 2), 1, 1, 0, 2),
         ((1, 5, 6, 6), (5, 1, 3, 3), 5, 1, 1, 1),
         ((2, 34, 5, 5), (36, 17, 1, 1), 2, 1, 0, 1), ((1, 3, 4, 5, 6), (4, 3, 2, 3, 2), 1, 2, 1, 1)]


@pytest.mark.parametrize("x,w,groups,stride,padding,dilation", CASES)
def test_conv(x, w, groups, stride, padding, dilation):
    rank = len(x) - 2
    conv = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    check("Conv", [image(*x), image(*w), image(w[0])],
          lambda a, b, c: conv(a, b, c, stride, padding, dilation, groups), data=(0, 1, 2), group=groups,
          strides=[stride] * rank, pads=[padding] * 2 * rank, dilations=[dilation] * rank)


@pytest.mark.parametrize("x,w,groups,stride,padding,dilation", CASES)
def test_transposed(x, w, groups, stride, padding, dilation):
    rank = len(x) - 2
    conv = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    x = (x[0], w[0], *x[2:])
    check("ConvTranspose", [image(*x), image(*w), image(w[1] * groups)],
          lambda a, b, c: conv(a, b, c, stride, padding, 0, groups, dilation), data=(0, 1, 2), group=groups,
          strides=[stride] * rank, pads=[padding] * 2 * rank, dilations=[dilation] * rank)


# What has few channels is the input of Conv and the output of ConvTranspose; the last moves by more than 64 pixels.
FEW = [((2, 3, 80, 420), (6, 3, 7, 7), 1, 2, 3, 1), ((1, 3, 60, 24), (5, 3, 3, 3), 1, 1, 1, 1),
       ((1, 4, 50, 9), (6, 2, 3, 3), 2, 1, 1, 2), ((2, 2, 70), (4, 2, 3), 1, 2, 0, 1),
       ((1, 2, 30, 5, 6), (3, 2, 3, 2, 3), 1, 1, 1, 1), ((1, 1, 200), (4, 1, 16), 1, 8, 4, 1),
       ((1, 20, 120, 27), (4, 20, 9, 9), 1, 9, 0, 1)]


@pytest.mark.parametrize("x,w,groups,stride,padding,dilation", FEW)
def test_few_channels(x, w, groups, stride, padding, dilation):
    rank = len(x) - 2
    conv = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    transposed = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    attributes = {"group": groups, "strides": [stride] * rank, "pads": [padding] * 2 * rank,
                  "dilations": [dilation] * rank}
    weights, bias, big_bias = image(*w), image(w[0]), image(x[1])
    kernel, last, big_last = (torch.tensor(a, dtype=torch.float64) for a in (weights, bias, big_bias))
    check("Conv", [image(*x), weights, bias],
          lambda a: conv(a, kernel, last, stride, padding, dilation, groups), **attributes)
    small = [(n + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(x[2:], w[2:])]
    check("ConvTranspose", [image(x[0], w[0], *small), weights, big_bias],
          lambda a: transposed(a, kernel, big_last, stride, padding, 0, groups, dilation), **attributes)


@pytest.mark.parametrize("data", [(1,), (2,), (0, 1), (1, 2)])
def test_any_of_them_constant(data):
    inputs = [image(2, 3, 5, 5), image(4, 3, 3, 3), image(4)]
    dy = image(2, 4, 3, 3)
    _, want = run(build("Conv", inputs, data=(0, 1, 2)), inputs, (0, 1, 2), [dy])
    _, got = run(build("Conv", inputs, data=data), inputs, data, [dy])
    for k, g in zip(data, got):
        assert np.allclose(g, want[k], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [70, 200])
def test_few_live_channels(channels):
    x, w = image(2, 19, 9, 7), image(channels, 19, 1, 1)
    dy = np.zeros((2, channels, 9, 7), np.float32)
    dy[:, 67] = image(2, 9, 7)
    dy[1, 3, 2, 2:] = 0.5
    _, (got,) = run(build("Conv", [x, w], data=(0,)), [x, w], (0,), [dy])
    want = np.einsum("nkyx,kc->ncyx", dy.astype(np.float64), w[:, :, 0, 0])
    assert np.allclose(got, want, rtol=1e-5, atol=1e-5)
