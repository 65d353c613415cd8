# SPDX-License-Identifier: MIT
"""What docs/operators.tsv says of versions and types is so."""

import pathlib
import zlib

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
import one_op  # noqa: E402
from operator_cases import CASES  # noqa: E402

TABLE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "operators.tsv"
ROWS = {row[0]: row[1:] for row in (line.split("\t") for line in TABLE.read_text().splitlines()) if row[0][0] != "#"}
TYPES = {"float": set(), "number": {"int64", "int32", "uint8"}, "any": {"int64", "int32", "uint8", "bool"}}
FLOAT_ALWAYS = {"Resize": (1, 2), "Upsample": (1,)}  # scales and regions, not data


def schema_versions(op):
    """Since-versions that a model of opset 6 or later can mean."""
    history = {s.since_version for s in onnx.defs.get_all_schemas_with_history() if (s.domain, s.name) == ("", op)}
    old = [v for v in history if v <= 6]
    return sorted(v for v in history if v > 6) if not old else [max(old), *sorted(v for v in history if v > 6)]


@pytest.mark.parametrize("op", ROWS)
def test_versions(op):
    known = [int(v) for v in ROWS[op][0].split() if int(v) <= onnx.defs.onnx_opset_version()]
    want = schema_versions(op)
    if not want:
        pytest.skip(f"{op} is not an operator of this onnx")
    assert known == want


def accepted(op, dtype):
    case = next(CASES[op](np.random.default_rng([0, zlib.crc32(op.encode())]), op))
    inputs = [a if a is None or a.dtype != np.float32 or k in FLOAT_ALWAYS.get(op, ()) else (1 + abs(a)).astype(dtype)
              for k, a in enumerate(case.inputs)]
    attributes = {**case.attributes}
    try:
        one_op.run(one_op.build(op, inputs, case.data, case.opset, case.n_out, **attributes), inputs, case.data)
    except one_op.gradcam.GradcamError:
        return False
    return True


@pytest.mark.parametrize("op", sorted(CASES))
def test_types(op):
    """Claimed types run; others are refused, but that bool may count as a number."""
    got = {dtype for dtype in TYPES["any"] if accepted(op, dtype)}
    claimed = TYPES[ROWS[op][1]]
    assert claimed <= got
    assert got - claimed <= ({"bool"} if claimed else set())
