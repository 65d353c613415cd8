#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Hostile and odd model files through the command: the verdict of their index,
never a signal, more than 5 s or more than 2 GiB of address space.  As the index
asks, inputs are ones, int64 inputs tens.  The argument is the command; of one
that a sanitizer watches, whose shadow is terabytes, the memory is not bounded."""

import csv
import math
import os
import pathlib
import resource
import subprocess
import sys
import tarfile
import tempfile

ARCHIVE = pathlib.Path(__file__).resolve().parents[3] / "shared" / "onnx" / "malformed.tar.xz"
BYTES = 2 << 30
SECONDS = 5  # of the processor: a busy machine is no verdict
PATIENCE = 60  # seconds of the clock


def skip(reason):
    print(f"skipped: {reason}\n0 passed, 0 failed, 1 skipped")
    sys.exit(0)


def limit(sanitized):
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not sanitized:
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))


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


def verdict(command, path, folder, sanitized):
    """"A" accepted, "R" refused with a message, or what should never happen; and the message."""
    try:
        done = subprocess.run([command, "run", str(path), "--fill", "1", "--threads", "1", "--out", str(folder / "out"),
                               *tens(path, folder)], capture_output=True, text=True, errors="replace",
                              timeout=PATIENCE, preexec_fn=lambda: limit(sanitized), check=False)
    except subprocess.TimeoutExpired:
        return "hang", ""
    if done.returncode == 0:
        return "A", ""
    refused = done.returncode == 1 and done.stderr.startswith("gradcam: ") and done.stderr.count("\n") == 1
    return "R" if refused else f"exit {done.returncode}", done.stderr


def is_sanitized(command):
    libraries = subprocess.run(["ldd", command], capture_output=True, text=True, check=False).stdout
    return "libasan" in libraries or "libtsan" in libraries


def main():
    command = sys.argv[1]
    if not ARCHIVE.exists():
        skip("the malformed files are not beside the project")
    sanitized = is_sanitized(command)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(folder, filter="fully_trusted")  # links are part of the attack
        with open(folder / "malformed" / "INDEX.tsv", newline="") as index:
            rows = list(csv.DictReader(index, delimiter="\t"))
        for row in rows:
            got, message = verdict(command, folder / "malformed" / row["file"], folder, sanitized)
            if got not in ("A", "R") or (row["expect"] in "AR" and got != row["expect"]):
                wrong += 1
                print(f"{row['file']} ({row['what']}): {got}, expected {row['expect']} {message[:1000]}")
    print(f"{len(rows) - wrong} passed, {wrong} failed, 0 skipped")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    os.environ["ASAN_OPTIONS"] = "allocator_may_return_null=1:" + os.environ.get("ASAN_OPTIONS", "")
    try:
        import numpy as np
        import onnx
    except ImportError as missing:
        skip(f"the malformed files need {missing.name}")
    main()
