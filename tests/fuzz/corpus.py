#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Seeds for the fuzzer: python3 tests/fuzz/corpus.py FOLDER

The smallest of the ONNX node tests for every set of operators and version, and
the small malformed files, from the archives beside the project."""

import csv
import io
import pathlib
import sys
import tarfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "onnx"
MOST = 4096


def files(archive, wanted):
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and wanted(member):
                yield member.name.split("/", 1)[1], tar.extractfile(member).read()


def node_tests():
    data = dict(files(SHARED / "node-tests.tar.xz",
                      lambda m: m.name.endswith("INDEX.tsv") or (m.name.endswith("model.onnx") and m.size <= MOST)))
    smallest = {}
    for row in csv.DictReader(io.StringIO(data.pop("INDEX.tsv").decode()), delimiter="\t"):
        model = data.get(f"{row['group']}/{row['test']}/model.onnx")
        if model is not None and len(model) < len(smallest.get(row["ops"], bytes(MOST + 1))):
            smallest[row["ops"]] = model
    return smallest.values()


def main():
    target = pathlib.Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    malformed = files(SHARED / "malformed.tar.xz", lambda m: m.name.endswith(".onnx") and m.size <= MOST)
    seeds = [*node_tests(), *(data for _, data in malformed)]
    for k, seed in enumerate(seeds):
        (target / f"seed{k:04}").write_bytes(seed)
    print(f"{len(seeds)} seeds in {target}")


if __name__ == "__main__":
    main()
