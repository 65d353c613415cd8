# SPDX-License-Identifier: MIT
"""Rotary embedding, losses, determinants and cumulative products against PyTorch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as tf

from one_op import build, check, refused, run


def floats(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


# ---- RotaryEmbedding ----

def rotary(dim, interleaved, heads):
    def reference(x, cosine, sine, positions=None):
        flat = x.ndim == 3
        y = x.unflatten(2, (heads, -1)) if flat else x.transpose(1, 2)
        n = dim or y.shape[-1]
        turned, rest = y[..., :n], y[..., n:]
        if positions is not None:
            cosine, sine = cosine[positions], sine[positions]
        cosine, sine = cosine[:, :, None], sine[:, :, None]
        a, b = (turned[..., 0::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
        parts = [cosine * a - sine * b, sine * a + cosine * b]
        turned = torch.stack(parts, -1).flatten(-2) if interleaved else torch.cat(parts, -1)
        y = torch.cat([turned, rest], -1)
        return y.flatten(2) if flat else y.transpose(1, 2)
    return reference


@pytest.mark.parametrize("seed", range(24))
def test_rotary(seed):
    rng = np.random.default_rng(seed)
    batch, heads, length, pairs = (int(n) for n in rng.integers(1, 5, 4))
    size = 2 * pairs + 2
    dim = int(rng.choice([0, 2, 2 * pairs]))
    half = (dim or size) // 2
    flat, interleaved, table = (bool(b) for b in rng.integers(0, 2, 3))
    x = floats(rng, batch, length, heads * size) if flat else floats(rng, batch, heads, length, size)
    rows = [6] if table else [batch if rng.random() < 0.7 else 1, length]
    inputs = [x, floats(rng, *rows, half), floats(rng, *rows, half)]
    if table:
        inputs.append(rng.integers(-6, 6, (batch, length)))
    check("RotaryEmbedding", inputs, rotary(dim, interleaved, heads), range(len(inputs)), opset=23, layouts=(False,),
          interleaved=int(interleaved), rotary_embedding_dim=dim, **({"num_heads": heads} if flat else {}))


def test_rotary_refusals():
    rng = np.random.default_rng(0)
    x, cache = floats(rng, 2, 3, 4, 6), floats(rng, 2, 4, 3)

    def no(words, *inputs, **attributes):
        refused("RotaryEmbedding", list(inputs), words, range(len(inputs)), opset=23, **attributes)

    no("rank 4", x[0, 0], cache, cache)
    no("num_heads", x[0], cache, cache)
    no("pairs", x, cache, cache, rotary_embedding_dim=3)
    no("pairs", x, cache, cache, rotary_embedding_dim=8)
    no("do not fit", x, cache, cache, rotary_embedding_dim=4)
    no("do not fit", x, cache, cache[:, :, :2])
    no("do not fit", x, cache[0], cache[0])
    no("position 4 of 4", x, cache[0], cache[0], np.full((2, 4), 4))
    no("position -5 of 4", x, cache[0], cache[0], np.full((2, 4), -5))


# ---- losses ----

def labels_of(rng, shape, classes, ignored):
    labels = rng.integers(0, classes, shape)
    return labels if ignored is None else np.where(rng.random(shape) < 0.3, ignored, labels)


def loss_case(seed):
    rng = np.random.default_rng(seed)
    shape = [int(n) for n in rng.integers(1, 5, int(rng.integers(2, 6)))]
    ignored = [None, -1, 1000, 0][seed % 4]
    labels = labels_of(rng, shape[:1] + shape[2:], shape[1], ignored)
    if ignored is not None and (labels == ignored).all():
        labels.flat[0] = min(1, shape[1] - 1) if ignored == 0 else 0
        ignored = -7 if shape[1] == 1 and ignored == 0 else ignored
    weight = np.abs(floats(rng, shape[1])) + 0.1 if seed % 3 else None
    how = {"reduction": ["none", "sum", "mean"][seed // 4 % 3], **({} if ignored is None else {"ignore_index": ignored})}
    torch_how = {"reduction": how["reduction"], "ignore_index": -12345 if ignored is None else ignored}
    labels = labels.astype(np.int32 if seed % 2 else np.int64)
    inputs = [floats(rng, *shape), labels] + ([] if weight is None else [weight])
    return inputs, torch.tensor(labels.astype(np.int64)), how, torch_how


def nll(p, labels, weight=None, reduction="mean", ignore_index=-1):
    """torch's nll_loss, but with a gradient to the weight."""
    kept = labels != ignore_index
    chosen = torch.where(kept, labels, 0)
    w = kept * (1.0 if weight is None else weight[chosen])
    loss = -p.gather(1, chosen[:, None])[:, 0] * w
    return loss if reduction == "none" else loss.sum() if reduction == "sum" else loss.sum() / w.sum()


@pytest.mark.parametrize("seed", range(0, 36, 5))
def test_the_reference_is_that_of_torch(seed):
    inputs, labels, _, how = loss_case(seed)
    x, *weight = (torch.tensor(a) for a in inputs[::2])
    assert torch.allclose(nll(x, labels, *weight, **how), tf.nll_loss(x, labels, *weight, **how), equal_nan=True)


@pytest.mark.parametrize("seed", range(36))
def test_negative_log_likelihood(seed):
    inputs, labels, how, torch_how = loss_case(seed)
    check("NegativeLogLikelihoodLoss", inputs, lambda x, _, *w: nll(x, labels, *w, **torch_how), range(len(inputs)),
          opset=13, **how)


@pytest.mark.parametrize("seed", range(36))
@pytest.mark.parametrize("outputs", [1, 2])
def test_cross_entropy(seed, outputs):
    inputs, labels, how, torch_how = loss_case(seed)
    check("SoftmaxCrossEntropyLoss", inputs,
          lambda x, _, *w: (nll(tf.log_softmax(x, 1), labels, *w, **torch_how), tf.log_softmax(x, 1))[:outputs],
          range(len(inputs)), opset=13, **how)


def test_only_the_log_probabilities_have_a_gradient():
    inputs, labels, how, torch_how = loss_case(0)
    check("SoftmaxCrossEntropyLoss", inputs, lambda x: (tf.cross_entropy(x, labels, **torch_how), tf.log_softmax(x, 1)),
          silent=(0,), opset=13, **how)


@pytest.mark.parametrize("op", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
def test_loss_refusals(op):
    rng = np.random.default_rng(0)
    x, t = floats(rng, 2, 3, 4), rng.integers(0, 3, (2, 4))
    refused(op, [x, t + 3], "of 3 classes", (0, 1), opset=13)
    refused(op, [x, -1 - t], "of 3 classes", (0, 1), opset=13, ignore_index=-9)
    refused(op, [x, t[:, :3]], "do not fit", (0, 1), opset=13)
    refused(op, [x, t, floats(rng, 2)], "do not fit", (0, 1, 2), opset=13)
    refused(op, [x, t.astype(np.float32)], "int32 or int64", (0, 1), opset=13)
    refused(op, [x, t], "reduction", (0, 1), opset=13, reduction="max")


# ---- SwiGLU ----

@pytest.mark.parametrize("shape", [(), (7,), (2, 3, 5), (2, 3, 4, 5)])
def test_swiglu(shape):
    rng = np.random.default_rng(len(shape))
    inputs = [np.float32(9) * floats(rng, *shape), floats(rng, *shape)]
    check("SwiGLU", [np.asarray(a) for a in inputs], lambda a, b: a * torch.sigmoid(0.7 * a) * b, (0, 1), opset=28,
          alpha=0.7)


def test_swiglu_refusals():
    refused("SwiGLU", [np.zeros((2, 3), np.float32), np.zeros((1, 3), np.float32)], "same shape", (0, 1), opset=28)


# ---- Det ----

@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (2, 5, 5), (2, 3, 4, 4), (12, 12), (3, 0, 0), (0, 2, 2)])
def test_det(shape):
    check("Det", [floats(np.random.default_rng(shape[-1]), *shape)], torch.linalg.det, layouts=(False,))


@pytest.mark.parametrize("n,rank", [(1, 0), (2, 1), (2, 0), (3, 2), (3, 1), (5, 4), (5, 3)])
def test_gradient_of_a_singular_determinant(n, rank):
    rng = np.random.default_rng(n)
    x = (rng.integers(-3, 4, (n, rank)) @ rng.integers(-3, 4, (rank, n))).astype(np.float32)

    def cofactor(i, j):
        rest = np.delete(np.delete(x.astype(np.float64), i, 0), j, 1)
        return (-1) ** (i + j) * np.linalg.det(rest)

    want = np.array([[cofactor(i, j) for j in range(n)] for i in range(n)])
    (y,), (dx,) = run(build("Det", [x]), [x], grad_outputs=[np.float32(1)])
    assert abs(y) <= 1e-4 and np.abs(dx - want).max() <= 1e-4 * max(1, np.abs(want).max())


def test_det_refuses_oblong_matrices():
    refused("Det", [np.zeros((2, 3), np.float32)], "square")
    refused("Det", [np.zeros(3, np.float32)], "square")


# ---- CumSum, CumProd ----

@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("op", ["CumSum", "CumProd"])
def test_cumulative(op, seed):
    rng = np.random.default_rng(seed)
    shape = [int(n) for n in rng.integers(1, 7, int(rng.integers(1, 5)))]
    axis = int(rng.integers(-len(shape), len(shape)))
    exclusive, reverse = seed % 2, seed // 2 % 2
    x = floats(rng, *shape)
    x[rng.random(shape) < (0.2 if seed % 3 else 0.0)] = 0

    def reference(x):
        x = x.flip(axis) if reverse else x
        total = torch.cumsum if op == "CumSum" else torch.cumprod
        if exclusive:
            first = torch.full_like(x.narrow(axis, 0, 1), 0.0 if op == "CumSum" else 1.0)
            x = torch.cat([first, x.narrow(axis, 0, x.shape[axis] - 1)], axis)
        y = total(x, axis)
        return y.flip(axis) if reverse else y

    check(op, [x, np.array(axis)], reference, opset=26, layouts=(False,), exclusive=exclusive, reverse=reverse)


@pytest.mark.parametrize("op,function", [("CumSum", np.cumsum), ("CumProd", np.cumprod)])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_cumulative_integers_wrap(op, function, dtype):
    x = np.random.default_rng(1).integers(-2**31, 2**31, (3, 40)).astype(dtype)
    (y,), _ = run(build(op, [x, np.array(1)], opset=26), [x])
    with np.errstate(over="ignore"):
        assert y.dtype == dtype and np.array_equal(y, function(x, 1, dtype=dtype))
