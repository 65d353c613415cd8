# SPDX-License-Identifier: MIT
"""Gradients of every operator that has one: against central differences of the
ONNX reference in float64, on seeded random shapes and attributes; and for linear
operators <A u, v> = <u, A^T v> of the library with itself."""

import pathlib
import zlib

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx.reference import ReferenceEvaluator  # noqa: E402

import one_op  # noqa: E402
from operator_cases import CASES  # noqa: E402
from operator_references import REFERENCES, pad  # noqa: E402

SEEDS = 3
STEP = 1e-6
PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "operators.md"


def differentiable():
    """From the page that a test holds equal to the registry."""
    rows = [line.split("|")[1:] for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return {row[0].strip() for row in rows if row[3].strip() == "yes"}


def draw(op, seed):
    return CASES[op](np.random.default_rng([seed, zlib.crc32(op.encode())]), op)


def wide(a):
    return a.astype(np.float64) if a is not None and a.dtype == np.float32 else a


def reference(op, case):
    """A function of the graph inputs in float64, by position: a list of outputs."""
    other = pad if op == "Pad" and min(case.inputs[1]) < 0 else REFERENCES.get(op)
    if other is not None:
        def run(feeds):
            outputs = other(*(feeds.get(k, wide(a)) for k, a in enumerate(case.inputs)), **case.attributes)
            return outputs if isinstance(outputs, tuple) else [outputs]
        return run
    inputs, attributes, opset = [wide(a) for a in case.inputs], {**case.attributes, **case.reference}, case.opset
    if op in ("Resize", "Upsample"):
        inputs[-1] = case.inputs[-1]  # scales are float32 by the letter
    if case.stand_in is not None:
        op, more, attributes = case.stand_in
        opset = max(opset, 18)
        inputs = [inputs[0], None, *inputs[1:]] if op == "Resize" else inputs[:1] if more is None else [*inputs, *more]
    evaluator = ReferenceEvaluator(one_op.build(op, inputs, case.data, opset, case.n_out, **attributes))
    return lambda feeds: evaluator.run(None, {f"x{k}": a for k, a in feeds.items()})


def seeds_of(outputs, case, rng):
    return [rng.standard_normal(np.shape(y)).astype(np.float32) if np.asarray(y).dtype.kind == "f" and k not in
            case.silent
            else None for k, y in enumerate(outputs)]


def central_differences(function, feeds, k, dys):
    """d sum_j <dy_j, y_j> / d x_k, one element after the other."""
    def score():
        return sum(float((np.asarray(y, np.float64) * dy).sum()) for y, dy in zip(function(feeds),
                dys) if dy is not None)
    gradient = np.zeros(feeds[k].shape)
    for at in np.ndindex(feeds[k].shape):
        kept = feeds[k][at]
        feeds[k][at] = kept + STEP
        above = score()
        feeds[k][at] = kept - STEP
        gradient[at] = (above - score()) / (2 * STEP)
        feeds[k][at] = kept
    return gradient


def check(op, case):
    function = reference(op, case)
    feeds = {k: np.array(wide(case.inputs[k])) for k in case.data if case.inputs[k] is not None}
    want = function(feeds)
    dys = seeds_of(want, case, np.random.default_rng(5))
    got, gradients = one_op.run(one_op.build(op, case.inputs, case.data, case.opset, case.n_out, **case.attributes),
                                case.inputs, case.data, dys)
    for k, (g, w) in enumerate(zip(got, want)):
        one_op.close(g, np.asarray(w), f"output {k}")
    differentiated = [k for k in case.data if case.inputs[k] is not None and case.inputs[k].dtype == np.float32]
    for k, g in zip(differentiated, gradients):
        one_op.close(g, central_differences(function, feeds, k, dys), f"gradient to input {k}")


def check_adjoint(op, case, k):
    """Affine in input k: with A u = f(u) - f(0), <A u, v> is <u, A^T v>."""
    rng = np.random.default_rng(11)
    model = one_op.build(op, case.inputs, case.data, case.opset, case.n_out, **case.attributes)
    base, u = list(case.inputs), list(case.inputs)
    base[k] = np.zeros_like(case.inputs[k])
    u[k] = rng.standard_normal(case.inputs[k].shape).astype(np.float32)
    origin, _ = one_op.run(model, base, case.data)
    v = seeds_of(origin, case, rng)
    outputs, gradients = one_op.run(model, u, case.data, v)
    differentiated = [j for j in case.data if case.inputs[j] is not None and case.inputs[j].dtype == np.float32]
    back = gradients[differentiated.index(k)].astype(np.float64)
    moved = [y.astype(np.float64) - y0 for y, y0, dy in zip(outputs, origin, v) if dy is not None]
    seeds = [dy.astype(np.float64) for dy in v if dy is not None]
    forward = sum((a * b).sum() for a, b in zip(moved, seeds))
    scale = np.sqrt((u[k].astype(np.float64) ** 2).sum() * sum((b ** 2).sum() for b in seeds))
    size = sum(np.abs(y).max(initial=0) for y in origin)  # f(u) - f(0) cancels
    assert abs(forward - (u[k] * back).sum()) <= 1e-5 * (scale + size * np.sqrt(sum(b.size for b in seeds))) + 1e-6


def described(case):
    shapes = [None if a is None else a.shape for a in case.inputs]
    return f"{case.attributes} {shapes}"


@pytest.mark.parametrize("op", sorted(CASES))
def test_differences(op):
    for seed in range(SEEDS):
        for case in draw(op, seed):
            try:
                check(op, case)
            except Exception as error:
                raise AssertionError(f"{op} {described(case)} seed {seed}: {error}") from error


@pytest.mark.parametrize("op", sorted(op for op in CASES if any(c.linear for c in draw(op, 0))))
def test_adjoint(op):
    for seed in range(10):
        for case in draw(op, seed):
            for k in case.linear:
                try:
                    check_adjoint(op, case, k)
                except Exception as error:
                    raise AssertionError(f"{op} {described(case)} input {k} seed {seed}: {error}") from error


def test_every_operator_is_here():
    listed = differentiable()
    assert len(listed) > 100
    assert not listed - set(CASES), f"operators with a gradient but without a case: {sorted(listed - set(CASES))}"
    assert not set(CASES) - listed, f"cases of operators without a gradient: {sorted(set(CASES) - listed)}"
