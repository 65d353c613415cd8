# SPDX-License-Identifier: MIT
"""Normalisation against PyTorch: what the ONNX node tests leave out."""

import numpy as np
import pytest
import torch
import torch.nn.functional as tf

from one_op import build, check, refused, run

SEEDS = range(6)


def floats(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def draw_shape(rng, low, high):
    return [int(n) for n in rng.integers(1, 6, int(rng.integers(low, high + 1)))]


def tail_shape(rng, row):
    """A shape that broadcasts to the row: some ones, some dimensions left out."""
    kept = row[int(rng.integers(0, len(row))):]
    return [n if rng.random() < 0.7 else 1 for n in kept]


def layer(axis, epsilon):
    def reference(x, scale, bias=None):
        axes = tuple(range(axis % x.ndim, x.ndim))
        mean = x.mean(axes, keepdim=True)
        inverse = (x.var(axes, unbiased=False, keepdim=True) + epsilon).rsqrt()
        y = (x - mean) * inverse * scale
        return (y if bias is None else y + bias), mean, inverse
    return reference


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("biased", [True, False])
def test_layer(seed, biased):
    rng = np.random.default_rng(seed)
    shape = draw_shape(rng, 2, 5)
    shape[-1] += 2
    axis = int(rng.integers(-len(shape), len(shape)))
    row = shape[axis % len(shape):]
    x, scale = floats(rng, *shape), floats(rng, *tail_shape(rng, row))
    bias = [floats(rng, *tail_shape(rng, row))] if biased else []
    check("LayerNormalization", [x, scale, *bias], layer(axis, 1e-3), range(2 + biased), axis=axis, epsilon=1e-3)


@pytest.mark.parametrize("silent", [(0,), (1,), (2,), (0, 1), (0, 2)])
def test_layer_gradient_through_statistics(silent):
    rng = np.random.default_rng(7)
    x, scale, bias = floats(rng, 3, 4, 5), floats(rng, 5), floats(rng, 5)
    check("LayerNormalization", [x, scale, bias], layer(-1, 1e-5), range(3), silent=silent)


@pytest.mark.parametrize("seed", SEEDS)
def test_rms(seed):
    rng = np.random.default_rng(seed)
    shape = draw_shape(rng, 1, 5)
    axis = int(rng.integers(-len(shape), len(shape)))
    axes = tuple(range(axis % len(shape), len(shape)))
    scale = floats(rng, *tail_shape(rng, shape[axes[0]:]))
    check("RMSNormalization", [floats(rng, *shape), scale],
          lambda x, s: x * (x.square().mean(axes, keepdim=True) + 1e-2).rsqrt() * s, range(2), axis=axis, epsilon=1e-2,
          opset=23)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("opset", [18, 21])
def test_group(seed, opset):
    rng = np.random.default_rng(seed)
    groups, each = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    channels = groups * each
    x = floats(rng, int(rng.integers(1, 4)), channels, *draw_shape(rng, 0, 3), 3)
    n = groups if opset == 18 else channels

    def reference(x, scale, bias):
        repeat = channels // n
        return tf.group_norm(x, groups, scale.repeat_interleave(repeat), bias.repeat_interleave(repeat), 1e-4)

    check("GroupNormalization", [x, floats(rng, n), floats(rng, n)], reference, range(3), opset=opset,
          num_groups=groups, epsilon=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("p", [1, 2])
def test_lp(seed, p):
    rng = np.random.default_rng(seed)
    shape = draw_shape(rng, 1, 4)
    axis = int(rng.integers(-len(shape), len(shape)))
    check("LpNormalization", [floats(rng, *shape) + 0.1], lambda x: x / x.norm(p, axis, keepdim=True), axis=axis, p=p)


@pytest.mark.parametrize("p", [1, 2])
def test_lp_of_zeros_is_zero(p):
    x = np.array([[0, 0, 0], [1, -2, 3]], np.float32)
    model = build("LpNormalization", [x], p=p, opset=22)
    (y,), (dx,) = run(model, [x], grad_outputs=[np.ones_like(x)])
    assert not y[0].any() and not dx[0].any() and np.allclose(y[1], x[1] / np.linalg.norm(x[1], p))


@pytest.mark.parametrize("axes", [None, [0, 2, 3], [1], [0, 1, 2, 3], [-1, 1]])
def test_mean_variance(axes):
    x = floats(np.random.default_rng(3), 2, 3, 4, 5)
    dims = axes or [0, 2, 3]

    def reference(x):
        center = x - x.mean(dims, keepdim=True)
        return center / (center.square().mean(dims, keepdim=True).sqrt() + 1e-9)

    check("MeanVarianceNormalization", [x], reference, **({"axes": axes} if axes else {}))


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (2, 3, 4, 5), (2, 35, 3, 2), (3, 2, 2, 3, 2)])
@pytest.mark.parametrize("opset", [14, 15])
def test_batch_in_training(shape, opset):
    rng = np.random.default_rng(5)
    n = shape[1]
    parameters = [floats(rng, n), floats(rng, n), floats(rng, n), np.abs(floats(rng, n))]
    scale, bias, mean, var = map(torch.tensor, np.float64(parameters))

    def reference(x):
        dims = [0, *range(2, x.ndim)]
        now = x.mean(dims), x.var(dims, unbiased=False)
        y = tf.batch_norm(x, None, None, scale, bias, True, 0.0, 1e-3)
        return y, mean * 0.7 + now[0] * 0.3, var * 0.7 + now[1] * 0.3

    check("BatchNormalization", [floats(rng, *shape), *parameters], reference, silent=(1, 2), opset=opset,
          training_mode=1, momentum=0.7, epsilon=1e-3)


def estimated(parameters):
    scale, bias, mean, var = map(torch.tensor, np.float64(parameters))
    return lambda x: (x - mean) / (var + 1e-5).sqrt() * scale + bias


def test_batch_of_a_vector():
    rng = np.random.default_rng(5)
    parameters = [floats(rng, 1), floats(rng, 1), floats(rng, 1), np.abs(floats(rng, 1))]
    check("BatchNormalization", [floats(rng, 7), *parameters], estimated(parameters))


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 2, 5)])
def test_batch_with_a_factor_for_every_element(shape):
    rng = np.random.default_rng(6)
    parameters = [floats(rng, *shape[1:]) for _ in range(3)] + [np.abs(floats(rng, *shape[1:]))]
    check("BatchNormalization", [floats(rng, *shape), *parameters], estimated(parameters), opset=7, spatial=0)


def test_refusals():
    rng = np.random.default_rng(0)
    x = floats(rng, 2, 6, 3)
    refused("LayerNormalization", [x, floats(rng, 4)], "does not fit", axis=-1)
    refused("LayerNormalization", [x, floats(rng, 2, 6, 3)], "does not fit", axis=1)
    refused("RMSNormalization", [x, floats(rng, 3)], "axis", axis=3, opset=23)
    refused("GroupNormalization", [x, floats(rng, 6), floats(rng, 6)], "num_groups", num_groups=4)
    refused("GroupNormalization", [x, floats(rng, 2), floats(rng, 6)], "values", num_groups=2)
    refused("LpNormalization", [x], "p is 3", p=3)
    refused("MeanVarianceNormalization", [x], "axis", axes=[3])
    refused("BatchNormalization", [np.zeros((0, 2), np.float32), *(floats(rng, 2) for _ in range(4))], "statistics",
            opset=15, training_mode=1)
