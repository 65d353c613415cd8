# SPDX-License-Identifier: MIT
"""DFT, STFT and windows against torch; sequences, bits and unique items against numpy."""

import numpy as np
import pytest
import torch
from one_op import build, check, refused, run

RNG = np.random.default_rng(8)


def signal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def complex_of(t):
    return torch.view_as_complex(t.contiguous()) if t.shape[-1] == 2 else t[..., 0]


@pytest.mark.parametrize("n", [None, 5, 12])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("inverse", [0, 1])
@pytest.mark.parametrize("axis", [1, -2, 0])
def test_dft(n, parts, inverse, axis):
    x = signal(3, 8, 4, parts)
    dim = axis if axis >= 0 else axis + 4

    def reference(t):
        return torch.view_as_real((torch.fft.ifft if inverse else torch.fft.fft)(complex_of(t) + 0j, n, dim))

    length = None if n is None else np.array(n, np.int64)
    check("DFT", [x, length, np.array(axis, np.int64)], reference, inverse=inverse, layouts=(False,))
    if axis == 1:
        check("DFT", [x, length], reference, opset=17, inverse=inverse, layouts=(False,))


def test_half_of_a_real_dft():
    for n in (7, 8):
        check("DFT", [signal(2, n, 1)], lambda t: torch.view_as_real(torch.fft.rfft(t[..., 0])), onesided=1, opset=17)


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("shape", [(2, 40), (3, 33, 1), (2, 25, 2)])
def test_stft(onesided, shape):
    x, w = signal(*shape), signal(9)
    if shape[-1] == 2 and onesided:
        return

    def reference(t, window=None):
        t = complex_of(t) if t.ndim == 3 else t
        frames = t.unfold(1, 9, 4) * (1 if window is None else window)
        spectrum = torch.fft.rfft(frames) if onesided else torch.fft.fft(frames + 0j)
        return torch.view_as_real(spectrum)

    step, length = np.array(4, np.int64), np.array(9, np.int64)
    check("STFT", [x, step, w], reference, data=(0, 2), onesided=onesided, layouts=(False,))
    check("STFT", [x, step, None, length], reference, onesided=onesided, layouts=(False,))


@pytest.mark.parametrize("size", [1, 2, 10, 11])
@pytest.mark.parametrize("periodic", [0, 1])
def test_windows(size, periodic):
    for op, make in (("HannWindow", torch.hann_window), ("BlackmanWindow", torch.blackman_window),
                     ("HammingWindow", lambda n, periodic=True: torch.hamming_window(n, periodic, 25 / 46, 21 / 46))):
        (y,), _ = run(build(op, [np.array(size, np.int64)], data=(), periodic=periodic), [], data=())
        want = make(size, periodic=bool(periodic)).numpy()
        if size == 1 and periodic:  # torch says 1, ONNX' formula the first of the period
            want = make(2).numpy()[:1]
        assert np.abs(y - want).max() < 1e-6, (op, y, want)


@pytest.mark.parametrize("batch_axis", [0, 1])
def test_reverse_sequence(batch_axis):
    x, lens = signal(5, 4, 3), np.array([0, 3, 1, 4][:5 if batch_axis == 0 else 4], np.int64)
    lens = np.array([0, 3, 1, 4, 2], np.int64) if batch_axis == 0 else np.array([5, 0, 1, 3], np.int64)

    def reference(t):
        t = t if batch_axis == 0 else t.transpose(0, 1)
        rows = [torch.cat([row[:n].flip(0), row[n:]]) for row, n in zip(t, lens)]
        return torch.stack(rows, 1 - (batch_axis == 0))

    check("ReverseSequence", [x, lens], reference, batch_axis=batch_axis, time_axis=1 - batch_axis)


@pytest.mark.parametrize("axis", [None, 0, -1])
def test_compress(axis):
    x, condition = signal(4, 3, 5), np.array([False, True, True])
    if axis is None:
        check("Compress", [x, condition], lambda t: t.flatten()[[1, 2]])
    else:
        check("Compress", [x, condition], lambda t: t.index_select(axis, torch.tensor([1, 2])), axis=axis)
    check("Compress", [x, np.array([False])], lambda t: t.flatten()[:0], layouts=(False,))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_bits(dtype):
    a = RNG.integers(-100 if dtype != np.uint8 else 0, 200, (2, 3, 4)).astype(dtype)
    b = RNG.integers(0, 100, (3, 1)).astype(dtype)
    for op, f in (("BitwiseAnd", np.bitwise_and), ("BitwiseOr", np.bitwise_or), ("BitwiseXor", np.bitwise_xor)):
        (y,), _ = run(build(op, [a, b], data=(0, 1)), [a, b], (0, 1))
        assert y.dtype == dtype and np.array_equal(y, f(a, b))
    (y,), _ = run(build("BitwiseNot", [a]), [a])
    assert np.array_equal(y, ~a)


def test_shifts():
    a, s = np.array([1, 255, 129, 7], np.uint8), np.array([3, 1, 8, 200], np.uint8)
    for direction, want in (("LEFT", [8, 254, 0, 0]), ("RIGHT", [0, 127, 0, 0])):
        (y,), _ = run(build("BitShift", [a, s], data=(0, 1), direction=direction), [a, s], (0, 1))
        assert y.tolist() == want


@pytest.mark.parametrize("ordered", [0, 1])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_unique(axis, ordered):
    x = RNG.integers(0, 3, (4, 5, 2)).astype(np.float32)
    x[:, 3], x[2] = x[:, 1], x[0]
    attributes = {} if axis is None else {"axis": axis}
    got, _ = run(build("Unique", [x], data=(), n_out=4, sorted=ordered, opset=11, **attributes), [], data=())
    y, first, inverse, count = np.unique(x, True, True, True, axis=axis)
    order = np.arange(len(first)) if ordered else np.argsort(first)
    rank = np.argsort(order)
    y = y[order] if axis is None else np.take(y, order, axis)
    for g, w in zip(got, (y, first[order], rank[inverse.reshape(-1)], count[order])):
        assert np.array_equal(g, w), (g, w)


def test_refusals():
    x = signal(2, 8, 3)
    refused("DFT", [x], "parts", opset=17)
    refused("DFT", [signal(2, 8, 1), np.array(0, np.int64)], "length of 0", opset=17)
    refused("STFT", [signal(2, 8), np.array(0, np.int64), signal(4)], "needs a float signal")
    refused("STFT", [signal(2, 8), np.array(1, np.int64), signal(9)], "needs a float signal")
    refused("ReverseSequence", [x, np.array([9, 1, 1, 1, 1, 1, 1, 1], np.int64)], "length 9")
    refused("Compress", [x, np.array([True] * 9)], "at most 8", axis=1)
    refused("BitShift", [np.ones(2, np.uint8), np.ones(2, np.uint8)], "direction", data=(0, 1))
    refused("Unique", [x], "data-dependent")
