# SPDX-License-Identifier: MIT
"""Attention against its definition in PyTorch, forward and backward to everything."""

import numpy as np
import pytest
import torch

from one_op import build, check, refused, run

INF = float("inf")


def floats(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def heads_first(x, heads):
    return x if x.ndim == 4 else x.unflatten(2, (heads, -1)).transpose(1, 2)


def mask_bias(mask, total, pads_one):
    if mask.dtype == torch.bool:
        mask = torch.where(mask, 0.0, -INF).to(torch.float64)
    if mask.shape[-1] < total and (mask.shape[-1] > 1 or pads_one):
        mask = torch.nn.functional.pad(mask, (0, total - mask.shape[-1]), value=-INF)
    return mask


def allowed(q_len, total, past, valid, causal, left, right):
    """[batch or 1, 1, q, k]: which keys a query may see by their places."""
    ends = torch.tensor([total] if valid is None else valid)[:, None, None, None]
    offset = past if valid is None else ends - q_len
    j, i = torch.arange(total), torch.arange(q_len)[:, None]
    ahead = j - i - offset
    seen = (j < ends) & (ahead >= -left if left >= 0 else ahead == ahead)
    if causal:
        seen = seen & (ahead <= 0)
    return seen & (ahead <= right) if right >= 0 else seen


def softmax(s):
    empty = (s == -INF).all(-1, keepdim=True)
    return torch.where(empty, 0.0, torch.softmax(torch.where(empty, 0.0, s), -1))


def attention(q_heads=0, kv_heads=0, scale=None, softcap=0.0, is_causal=0, qk_matmul_output_mode=0, opset=23,
              left_window_size=-1, right_window_size=-1, valid=None, order="qkv"):
    """The reference; `order` names the tensors it is given: q k v m(ask) K V (past)."""
    def reference(*tensors):
        given = dict(zip(order, tensors))
        flat = given["q"].ndim == 3
        q, k, v = heads_first(given["q"], q_heads), heads_first(given["k"], kv_heads), heads_first(given["v"], kv_heads)
        past = given["K"].shape[2] if "K" in given else 0
        present = [torch.cat([given["K"], k], 2), torch.cat([given["V"], v], 2)] if past else [k, v]
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in present)
        stages = [q @ k.transpose(2, 3) * (q.shape[3] ** -0.5 if scale is None else scale)]
        stages.append(softcap * torch.tanh(stages[0] / softcap) if softcap else stages[0])
        seen = allowed(q.shape[2], k.shape[2], past, valid, is_causal, left_window_size, right_window_size)
        biased = stages[1] + torch.where(seen, 0.0, -INF)
        stages.append(biased + mask_bias(given["m"], k.shape[2], opset >= 24) if "m" in given else biased)
        stages.append(softmax(stages[2]))
        y = stages[3] @ v
        y = y.transpose(1, 2).flatten(2) if flat else y
        return y, *present, stages[qk_matmul_output_mode]
    return reference


def hold(rng, batch=2, heads=4, kv_heads=2, q_len=3, kv_len=5, size=4, v_size=6, past=0, flat=False, mask=None, opset=23,
         valid=None, silent=(), **attributes):
    def draw(n, length, width):
        return floats(rng, batch, length, n * width) if flat else floats(rng, batch, n, length, width)

    inputs = [draw(heads, q_len, size), draw(kv_heads, kv_len, size), draw(kv_heads, kv_len, v_size), mask]
    order = "qkv" + ("m" if mask is not None else "")
    if past:
        inputs += [floats(rng, batch, kv_heads, past, size), floats(rng, batch, kv_heads, past, v_size)]
        order += "KV"
    if valid is not None:
        inputs += [None] * (6 - len(inputs)) + [np.array(valid, np.int64)]
    data = [k for k, x in enumerate(inputs) if x is not None and k < 6]
    reference = attention(heads, kv_heads, opset=opset, valid=valid, order=order, **attributes)
    if flat:
        attributes = {**attributes, "q_num_heads": heads, "kv_num_heads": kv_heads}
    check("Attention", inputs, reference, data, silent=silent, opset=opset, layouts=(False,), **attributes)


@pytest.mark.parametrize("seed", range(40))
def test_random(seed):
    rng = np.random.default_rng(seed)
    kv_heads, q_len, kv_len, past = (int(n) for n in rng.integers((1, 1, 1, 0), (4, 12, 12, 5)))
    how = {"heads": kv_heads * int(rng.integers(1, 4)), "kv_heads": kv_heads, "q_len": q_len, "kv_len": kv_len,
           "past": past, "flat": bool(rng.integers(2)), "qk_matmul_output_mode": int(rng.choice([0, 1, 3])),
           "is_causal": int(rng.integers(2)), "softcap": float(rng.choice([0.0, 1.5])), "size": int(rng.integers(1, 9))}
    if rng.random() < 0.5:
        how["scale"] = float(rng.uniform(0.1, 1.0))
    if rng.random() < 0.7:
        full = [2, how["heads"], q_len, kv_len + past]
        shape = [n if rng.random() < 0.6 else 1 for n in full][int(rng.integers(0, 3)):]
        shape[-1] = full[-1]
        how["mask"] = rng.random(shape) < 0.7 if rng.random() < 0.5 else floats(rng, *shape)
    hold(rng, **how)


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
@pytest.mark.parametrize("silent", [(), (0,), (1, 2), (0, 1, 2), (0, 3)])
def test_gradient_of_every_output(mode, silent):
    rng = np.random.default_rng(mode)
    hold(rng, past=2, mask=floats(rng, 3, 7), softcap=2.0, qk_matmul_output_mode=mode, silent=silent)


def test_large():
    hold(np.random.default_rng(0), batch=1, q_len=40, kv_len=50, size=33, v_size=35, past=20, is_causal=1)


@pytest.mark.parametrize("opset", [23, 24])
@pytest.mark.parametrize("length", [1, 3, 5])
def test_mask_shorter_than_the_keys(opset, length):
    rng = np.random.default_rng(length)
    hold(rng, mask=floats(rng, 4, 3, length), opset=opset)
    hold(rng, mask=rng.random((2, 1, 1, length)) < 0.8, opset=opset)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("valid", [(5, 5), (3, 5), (1, 4), (0, 2)])
def test_padded_keys(causal, valid):
    rng = np.random.default_rng(1)
    hold(rng, valid=valid, is_causal=causal, opset=24)
    hold(rng, valid=valid, is_causal=causal, opset=24, flat=True, mask=floats(rng, 3, 5))


@pytest.mark.parametrize("left,right", [(0, -1), (1, -1), (-1, 0), (-1, 1), (1, 1), (0, 0), (2, 0)])
@pytest.mark.parametrize("past", [0, 2])
def test_window(left, right, past):
    rng = np.random.default_rng(2)
    hold(rng, q_len=6, kv_len=6, past=past, left_window_size=left, right_window_size=right, opset=25)
    hold(rng, left_window_size=left, right_window_size=right, opset=25, is_causal=1, valid=None if past else (4, 2))


def test_a_masked_key_weighs_nothing():
    rng = np.random.default_rng(3)
    q, k, v = floats(rng, 1, 1, 2, 4), floats(rng, 1, 1, 3, 4), floats(rng, 1, 1, 3, 4)
    mask = np.array([[True, True, False], [False, False, False]])
    k[0, 0, 2] = np.inf
    y, grads = run(build("Attention", [q, k, v, mask], (0, 1, 2), opset=23), [q, k, v], (0, 1, 2),
                   [np.ones((1, 1, 2, 4), np.float32)])
    assert np.isfinite(y[0]).all() and not y[0][0, 0, 1].any()
    assert np.isfinite(grads[2]).all() and not grads[2][0, 0, 2].any() and not grads[1][0, 0, 2].any()


def test_refusals():
    rng = np.random.default_rng(4)
    q, k, v = floats(rng, 2, 4, 3, 6), floats(rng, 2, 2, 5, 6), floats(rng, 2, 2, 5, 7)
    past = [floats(rng, 2, 2, 3, 6), floats(rng, 2, 2, 3, 7)]
    valid = np.array([3, 4])

    def no(words, *inputs, opset=24, **attributes):
        refused("Attention", list(inputs), words, [i for i, x in enumerate(inputs) if x is not None], opset=opset,
                **attributes)

    no("rank", q, k, floats(rng, 2, 5, 7))
    no("do not fit", q, k[:, :, :4], v)
    no("do not fit", q, floats(rng, 2, 2, 5, 5), v)
    no("heads of K", floats(rng, 2, 3, 3, 6), k, v)
    no("num_heads", floats(rng, 2, 3, 8), floats(rng, 2, 5, 8), floats(rng, 2, 5, 8))
    no("num_heads", floats(rng, 2, 3, 8), floats(rng, 2, 5, 8), floats(rng, 2, 5, 8), q_num_heads=3, kv_num_heads=3)
    no("go together", q, k, v, None, past[0])
    no("does not fit K and V", q, k, v, None, past[1], past[0])
    no("excludes", q, k, v, None, *past, valid)
    no("one integer", q, k, v, None, None, None, valid[:1])
    no("broadcast", q, k, v, floats(rng, 2, 5))
    no("broadcast", q, k, v, floats(rng, 3, 6))
    no("bool or float", q, k, v, np.ones((3, 5), np.int64))
    no("out of range", q, k, v, qk_matmul_output_mode=4)
    no("out of range", q, k, v, opset=25, left_window_size=-2)


def test_no_keys_and_no_queries():
    for q_len, kv_len in (3, 0), (0, 4):
        q, k, v = (np.ones((2, 2, n, 4), np.float32) for n in (q_len, kv_len, kv_len))
        (y,), grads = run(build("Attention", [q, k, v], (0, 1, 2), opset=23), [q, k, v], (0, 1, 2), [np.ones_like(q)])
        assert y.shape == q.shape and not y.any() and not any(g.any() for g in grads)
