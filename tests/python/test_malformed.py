# SPDX-License-Identifier: MIT
"""Hostile and odd model files through the command: the verdict of their index,
never a signal, a hang or more than 2 GiB of address space.  As the index asks,
inputs are ones, int64 inputs tens."""

import csv
import math
import os
import pathlib
import resource
import subprocess
import tarfile

import numpy as np
import onnx
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ARCHIVE = ROOT.parent / "shared" / "onnx" / "malformed.tar.xz"
COMMAND = os.environ.get("GRADCAM_COMMAND", str(ROOT / "build" / "gradcam"))
LIMIT = 2 << 30
SECONDS = 5


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    if not ARCHIVE.exists():
        pytest.skip("the malformed files are not beside the project")
    target = tmp_path_factory.mktemp("malformed")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(target, filter="fully_trusted")  # links are part of the attack
    return target / "malformed"


def limit_memory():
    if "GRADCAM_NO_LIMIT" not in os.environ:  # sanitizers reserve terabytes
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))


def tens(path, folder):
    """--input for each int64 input that a file which protobuf can read declares."""
    try:
        inputs = onnx.load(path, load_external_data=False).graph.input
    except Exception:  # whatever protobuf thinks of a hostile file
        return []
    arguments = []
    for k, value in enumerate(v for v in inputs if v.type.tensor_type.elem_type == onnx.TensorProto.INT64):
        shape = [max(d.dim_value, 1) for d in value.type.tensor_type.shape.dim]
        if math.prod(shape) > 1e6:
            continue
        np.save(folder / f"{k}.npy", np.full(shape, 10, np.int64))
        arguments += ["--input", f"{value.name}={folder / f'{k}.npy'}"]
    return arguments


def verdict(path, out):
    try:
        done = subprocess.run([COMMAND, "run", str(path), "--fill", "1", "--threads", "1", "--out", str(out),
                               *tens(path, out.parent)],
                              capture_output=True, text=True, timeout=SECONDS, preexec_fn=limit_memory, check=False)
    except subprocess.TimeoutExpired:
        return "hang", ""
    if done.returncode == 0:
        return "A", ""
    return ("R" if done.returncode == 1 and done.stderr.startswith("gradcam: ") else f"exit {done.returncode}",
            done.stderr)


def test_verdicts(folder, tmp_path):
    with open(folder / "INDEX.tsv", newline="") as index:
        rows = list(csv.DictReader(index, delimiter="\t"))
    assert len(rows) >= 200
    wrong = []
    for row in rows:
        got, message = verdict(folder / row["file"], tmp_path / "out")
        if got not in ("A", "R") or (row["expect"] in "AR" and got != row["expect"]):
            wrong.append(f"{row['file']} ({row['what']}): {got}, expected {row['expect']} {message[:120]}")
    assert not wrong, "\n".join(wrong)
