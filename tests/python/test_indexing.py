# SPDX-License-Identifier: MIT
"""Gather, scatter, TopK, OneHot against torch, with repeated indices, ties and zeros."""

import numpy as np
import pytest
import torch
from one_op import build, check, refused, run

RNG = np.random.default_rng(9)
REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def numbers(*shape):
    """Few values, so that maxima tie and products hold zeros."""
    return RNG.integers(-2, 3, shape).astype(np.float32)


def distinct(n, *shape):
    """Indices below n, different along the first axis."""
    return np.stack([RNG.permutation(n)[:shape[0]] for _ in range(int(np.prod(shape[1:])))], -1).reshape(shape)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_scatter_elements(reduction, axis):
    x, index = numbers(4, 5, 3), RNG.integers(-2, 2, (3, 4, 3))
    updates = numbers(3, 4, 3)
    positive = torch.tensor(np.where(index < 0, index + x.shape[axis], index))
    check("ScatterElements", [x, index, updates],
          lambda t, u: t.scatter_reduce(axis, positive, u, REDUCTIONS[reduction]), data=(0, 2), axis=axis,
          reduction=reduction)


def test_scatter_elements_without_reduction():
    x, index, updates = numbers(4, 5), distinct(4, 3, 5), numbers(3, 5)
    for op, attributes in (("ScatterElements", {}), ("Scatter", {"opset": 9})):
        check(op, [x, index, updates], lambda t, u: t.scatter(0, torch.tensor(index), u), data=(0, 2), **attributes)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_scatter_nd(reduction):
    x, index = numbers(3, 4, 5), RNG.integers(-1, 2, (6, 2))
    updates = numbers(6, 5)
    wrapped = np.where(index < 0, index + np.array([3, 4]), index)
    flat = torch.tensor(wrapped[:, 0] * 4 + wrapped[:, 1])[:, None].expand(6, 5)
    check("ScatterND", [x, index, updates],
          lambda t, u: t.reshape(12, 5).scatter_reduce(0, flat, u, REDUCTIONS[reduction]).reshape(3, 4, 5), data=(0, 2),
          reduction=reduction)


def test_scatter_nd_without_reduction():
    x, index, updates = numbers(3, 4, 5), np.array([[0, 1], [2, -1]]), numbers(2, 5)

    def reference(t, u):
        return t.index_put((torch.tensor([0, 2]), torch.tensor([1, 3])), u)

    check("ScatterND", [x, index, updates], reference, data=(0, 2))


def test_integers_scatter_too():
    x, index, updates = RNG.integers(0, 9, (4, 3)), np.array([[0, 1, 0], [0, 1, 3]]), RNG.integers(0, 9, (2, 3))
    for reduction, name in REDUCTIONS.items():
        want = torch.tensor(x).scatter_reduce(0, torch.tensor(index), torch.tensor(updates), name).numpy()
        inputs = [x, index, updates]
        (y,), _ = run(build("ScatterElements", inputs, data=(0, 2), reduction=reduction), inputs, data=(0, 2))
        assert np.array_equal(y, want)


def test_not_a_number_wins():
    x, updates = np.array([np.nan, 1, 2], np.float32), np.array([1, np.nan, 5], np.float32)
    for reduction in ("max", "min"):
        (y,), _ = run(build("ScatterElements", [x, np.arange(3), updates], reduction=reduction), [x])
        assert np.isnan(y[:2]).all() and y[2] == (5 if reduction == "max" else 2)


def test_gather():
    x, index = numbers(4, 5, 3), np.array([[0, -1], [2, 0]])
    for axis in (0, 1, -1):
        check("Gather", [x, index], lambda t: torch.stack([torch.stack([t.select(axis, int(i)) for i in row], axis % 3)
                                                           for row in index], axis % 3), axis=axis)
    each = RNG.integers(-3, 3, (4, 2, 3))
    check("GatherElements", [x, each], lambda t: t.gather(1, torch.tensor(np.where(each < 0, each + 5, each))), axis=1)
    check("GatherND", [x, np.array([[[0, 1], [3, -2]]])], lambda t: torch.stack([t[0, 1], t[3, 3]])[None])
    batch = np.array([[0], [2], [0], [-1]])
    check("GatherND", [x, batch], lambda t: t[torch.arange(4), torch.tensor([0, 2, 0, 4])], batch_dims=1)


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_topk(largest, axis):
    x = RNG.permutation(60).reshape(4, 5, 3).astype(np.float32)
    k = min(3, x.shape[axis])
    check("TopK", [x, np.array([k])], lambda t: t.topk(k, axis, bool(largest)), axis=axis, largest=largest)


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_one_hot(axis):
    index, values = np.array([[0, -1, 7], [2, 1, -9]]), np.array([0.5, 3], np.float32)

    def reference(v):
        hot = torch.tensor([[[(i + 4 if i < 0 else i) == k for k in range(4)] for i in row] for row in index])
        return torch.where(hot, v[1], v[0]).movedim(-1, axis)

    check("OneHot", [index, np.array(4), values], reference, data=(2,), axis=axis)


def test_indices_out_of_range():
    x = numbers(4, 5)
    refused("Gather", [x, np.array([4])], "outside", axis=0)
    refused("GatherElements", [x, np.array([[-5, 0]])], "outside", axis=0)
    refused("GatherND", [x, np.array([[3, 5]])], "outside")
    refused("ScatterElements", [x, np.array([[9]]), numbers(1, 1)], "outside", data=(0, 2), reduction="mul")
    refused("ScatterND", [x, np.array([[4]]), numbers(1, 5)], "outside", data=(0, 2))
    refused("ScatterND", [x, np.array([[3]]), numbers(1, 5)], "unknown reduction", data=(0, 2), reduction="mean")
