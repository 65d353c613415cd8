# SPDX-License-Identifier: MIT
"""The rarer poolings and their inverses against torch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from one_op import build, check, refused, run

RNG = np.random.default_rng(4)


def image(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("p", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel,stride,pads,dilation,ceil", [((2, 2), (2, 2), (0, 0), (1, 1), 0),
                                                              ((3, 2), (2, 1), (1, 0), (1, 1), 1),
                                                              ((2, 3), (1, 2), (1, 1), (2, 1), 0)])
def test_lp_pool(p, kernel, stride, pads, dilation, ceil):
    x = image(2, 35, 6, 7)

    def reference(t):
        t = F.pad(t.abs() ** p, (pads[1], pads[1], pads[0], pads[0]))
        if ceil:  # room for the windows that begin in the last pixels
            t = F.pad(t, (0, stride[1] - 1, 0, stride[0] - 1))
        size = [(n - d * (k - 1) - 1) // s + 1 for n, d, k, s in zip(t.shape[2:], dilation, kernel, stride)]
        blocks = F.unfold(t, kernel, dilation, 0, stride).reshape(*t.shape[:2], -1, *size)
        return blocks.sum(2) ** (1 / p)

    check("LpPool", [x], reference, kernel_shape=kernel, strides=stride, pads=[*pads, *pads], dilations=dilation,
          ceil_mode=ceil, p=p)


@pytest.mark.parametrize("shape", [(2, 3, 9), (2, 37, 4, 5), (1, 2, 3, 4, 5), (1, 2, 2, 2, 3, 2)])
@pytest.mark.parametrize("p", [1, 2, 5])
def test_global_lp_pool(shape, p):
    axes = tuple(range(2, len(shape)))
    check("GlobalLpPool", [image(*shape)], lambda t: (t.abs() ** p).sum(axes, keepdim=True) ** (1 / p), p=p)


def test_lp_pool_of_zeros_has_no_gradient():
    x = np.zeros((1, 1, 4), np.float32)
    (y,), (g,) = run(build("LpPool", [x], kernel_shape=[2], p=3), [x], grad_outputs=[np.ones((1, 1, 3), np.float32)])
    assert not y.any() and not g.any()


@pytest.mark.parametrize("shape", [(2, 3, 9), (2, 33, 7, 6), (1, 2, 5, 6, 7)])
def test_max_unpool(shape):
    rank = len(shape) - 2
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
    unpool = (F.max_unpool1d, F.max_unpool2d, F.max_unpool3d)[rank - 1]
    values, index = pool(torch.tensor(image(*shape)), 2, 2, return_indices=True)
    inner = [2 * n for n in values.shape[2:]]
    values, index = pool(torch.tensor(image(*shape[:2], *inner)), 2, 2, return_indices=True)
    plane = int(np.prod(inner))
    flat = index + plane * torch.arange(shape[0] * shape[1]).reshape(shape[0], shape[1], *[1] * rank)
    inputs = [values.numpy(), flat.numpy()]
    check("MaxUnpool", inputs, lambda t: unpool(t, index, 2, 2), kernel_shape=[2] * rank, strides=[2] * rank)
    outer = np.array([*shape[:2], *[n + 1 for n in inner]], np.int64)
    check("MaxUnpool", [*inputs, outer], lambda t: F.pad(unpool(t, index, 2, 2), (0, 1) * rank),
          kernel_shape=[2] * rank, strides=[2] * rank)


@pytest.mark.parametrize("shape", [(2, 3, 9), (2, 33, 7, 6), (1, 2, 5, 6, 7)])
def test_indices_in_both_orders(shape):
    rank = len(shape) - 2
    x = image(*shape)
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
    _, index = pool(torch.tensor(x), 3, 2, return_indices=True)
    plane = int(np.prod(shape[2:]))
    planes = plane * np.arange(shape[0] * shape[1]).reshape(shape[0], shape[1], *[1] * rank)
    places = np.array(np.unravel_index(index.numpy(), shape[2:]))
    for order in (0, 1):
        number = np.ravel_multi_index(tuple(places), shape[2:], order="F" if order else "C")
        (_, got), _ = run(build("MaxPool", [x], n_out=2, kernel_shape=[3] * rank, strides=[2] * rank,
                                storage_order=order), [x])
        assert np.array_equal(got, number + planes)


@pytest.mark.parametrize("size,kernel,dilation,padding,stride", [((5, 6), (2, 3), (1, 1), (0, 0), (1, 1)),
                                                                 ((6, 7), (3, 2), (2, 1), (1, 1), (2, 3))])
def test_col2im(size, kernel, dilation, padding, stride):
    places = [(n + 2 * p - d * (k - 1) - 1) // s + 1
              for n, p, d, k, s in zip(size, padding, dilation, kernel, stride)]
    x = image(2, 3 * kernel[0] * kernel[1], places[0] * places[1])
    check("Col2Im", [x, np.array(size, np.int64), np.array(kernel, np.int64)],
          lambda t: F.fold(t, size, kernel, dilation, padding, stride), dilations=dilation,
          pads=[*padding, *padding], strides=stride)


def test_refusals():
    x = image(1, 1, 4, 4)
    refused("LpPool", [x], "p = 0", kernel_shape=[2, 2], p=0)
    index = np.full((1, 1, 2, 2), 16, np.int64)
    refused("MaxUnpool", [x[:, :, :2, :2], index], "outside 16", kernel_shape=[2, 2], strides=[2, 2])
    refused("MaxUnpool", [x, np.zeros((1, 1, 4, 4), np.int64), np.array([1, 1, 7, 8], np.int64)], "does not hold",
            kernel_shape=[2, 2], strides=[2, 2])
    refused("Col2Im", [image(1, 5, 4), np.array([4], np.int64), np.array([2], np.int64)], "multiple", strides=[1])


@pytest.mark.parametrize("size", [(2, 2), (1, 2), (2, 5)])
@pytest.mark.parametrize("include", [0, 1])
def test_the_extra_window_may_be_the_only_one(size, include):
    """ceil_mode with a window wider than the image, as at the end of networks on small images."""
    x = image(2, 20, *size)
    pads = [0, 0]
    kernel = (min(3, size[0] + 1), 3)
    shape = {"kernel_shape": kernel, "strides": [2, 2], "pads": [*pads, *pads], "ceil_mode": 1}
    check("MaxPool", [x], lambda t: F.max_pool2d(t, kernel, 2, tuple(pads), ceil_mode=True), **shape)
    check("AveragePool", [x], lambda t: F.avg_pool2d(t, kernel, 2, tuple(pads), True, bool(include)),
          count_include_pad=include, **shape)


def test_a_window_that_begins_outside_is_refused():
    with pytest.raises(Exception, match="larger than the padded input"):
        run(build("MaxPool", [image(1, 1, 1, 1)], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), [image(1, 1, 1, 1)])
