# SPDX-License-Identifier: MIT
"""Operators in float64 where ONNX's reference is not: it computes in float32
inside, or not what the standard says.  Functions of the inputs and attributes."""

import math

import numpy as np
import torch
from torch.nn import functional

erf = np.vectorize(math.erf, otypes=["d"])


def gelu(x, approximate):
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def lrn(x, size, alpha, beta, bias):
    squares = np.zeros_like(x)
    before = (size - 1) // 2
    for c in range(x.shape[1]):
        squares[:, c] = (x[:, max(0, c - before):c - before + size] ** 2).sum(1)
    return x / (bias + alpha / size * squares) ** beta


def lp_norm(x, p, axis):
    return x / (np.abs(x) ** p).sum(axis, keepdims=True) ** (1 / p)


def group_norm(x, scale, bias, num_groups):
    rows = x.reshape(x.shape[0], num_groups, -1)
    rows = (rows - rows.mean(-1, keepdims=True)) / np.sqrt(rows.var(-1, keepdims=True) + 1e-5)
    shape = (1, -1) + (1,) * (x.ndim - 2)
    return rows.reshape(x.shape) * scale.reshape(shape) + bias.reshape(shape)


def mean_variance(x, axes):
    axes = tuple(axes)
    return (x - x.mean(axes, keepdims=True)) / (np.sqrt(x.var(axes, keepdims=True)) + 1e-9)


def affine_grid(theta, size, align_corners):
    grid = functional.affine_grid(torch.tensor(theta), [int(n) for n in size], align_corners=bool(align_corners))
    return grid.numpy()


def grid_sample(x, grid, mode, padding_mode="zeros", align_corners=0):
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    return functional.grid_sample(torch.tensor(x), torch.tensor(grid), mode, padding_mode, bool(align_corners)).numpy()


def pad(x, pads, value, mode="constant"):
    """Negative pads crop."""
    half = len(pads) // 2
    grown = np.pad(x, [(max(a, 0), max(b, 0)) for a, b in zip(pads[:half], pads[half:])], constant_values=value)
    return grown[tuple(slice(max(-a, 0), n - max(-b, 0)) for a, b, n in zip(pads[:half], pads[half:], grown.shape))]


def pixel(image, y, x):
    """Bilinear, zero outside; image [channels, height, width]."""
    top, left = math.floor(y), math.floor(x)
    value = 0.0
    for row, part in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, share in ((left, 1 - (x - left)), (left + 1, x - left)):
            if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
                value = value + part * share * image[:, row, column]
    return value


def deform_conv(x, w, offset, bias, mask, group, offset_group, kernel_shape):
    """Stride 1, no padding."""
    (kh, kw), (n, channels, h, width) = kernel_shape, x.shape
    taps = np.zeros((n, channels, kh * kw, h - kh + 1, width - kw + 1))
    each = channels // offset_group
    for b, g, k, y, z in np.ndindex(n, offset_group, kh * kw, *taps.shape[3:]):
        dy, dx = offset[b, 2 * (g * kh * kw + k):, y, z][:2]
        where = slice(g * each, (g + 1) * each)
        taps[b, where, k, y, z] = mask[b, g * kh * kw + k, y, z] * pixel(x[b, where], y + k // kw + dy, z + k % kw + dx)
    taps = taps.reshape(n, group, channels // group, kh * kw, *taps.shape[3:])
    kernel = w.reshape(group, -1, channels // group, kh * kw)
    return np.einsum("bgckyz,gmck->bgmyz", taps, kernel).reshape(n, -1, *taps.shape[4:]) + bias.reshape(1, -1, 1, 1)


def causal_conv(x, w, bias, past, activation):
    padded = np.concatenate([past, x], -1)
    length = x.shape[-1]
    y = bias.reshape(1, -1, 1) + sum(padded[:, :, k:k + length] * w[:, 0, k:k + 1] for k in range(w.shape[-1]))
    return y / (1 + np.exp(-y)) if activation == "silu" else y, padded[:, :, length:]


def swiglu(a, b, alpha=1.0):
    return a * b / (1 + np.exp(-alpha * a))


def linear_attention(q, k, v, past, decay, beta, update_rule, q_num_heads, kv_num_heads):
    """ONNX's own goes through float32, where differences drown."""
    batch, times, heads = *q.shape[:2], kv_num_heads
    q, k, v = (x.reshape(batch, times, n, -1) for x, n in ((q, q_num_heads), (k, heads), (v, heads)))
    decay = np.zeros((batch, times, heads, 1)) if decay is None else decay.reshape(batch, times, heads, -1)
    beta = np.ones((batch, times, 1)) if beta is None else beta
    state, out = past, []
    for t in range(times):
        state = np.exp(decay[:, t, :, :, None]) * state
        write = v[:, t]
        if update_rule.endswith("delta"):
            write = beta[:, t, :, None] * (write - np.einsum("bhkv,bhk->bhv", state, k[:, t]))
        state = state + k[:, t, :, :, None] * write[:, :, None]
        read = np.repeat(state, q_num_heads // heads, 1)
        out.append(np.einsum("bhkv,bhk->bhv", read, q[:, t]).reshape(batch, -1) / q.shape[-1] ** 0.5)
    return np.stack(out, 1), state


REFERENCES = {"Erf": erf, "Gelu": gelu, "LRN": lrn, "LpNormalization": lp_norm, "GroupNormalization": group_norm,
              "MeanVarianceNormalization": mean_variance, "AffineGrid": affine_grid, "GridSample": grid_sample,
              "DeformConv": deform_conv, "CausalConvWithState": causal_conv, "LinearAttention": linear_attention,
              "SwiGLU": swiglu}
