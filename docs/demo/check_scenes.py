# SPDX-License-Identifier: MIT
"""Checks that scene.c draws the same bytes and boxes as scenes.py.

Compiles scene.c into a shared library in a temporary folder and compares
every scene of scenes.txt.  The exit code is 1 if any differs.
"""

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

import scenes as sc

HERE = Path(__file__).resolve().parent
ROOM = 4096   # more bytes than any struct of scene.h has


def build(folder):
    """The shared library, loaded."""
    path = Path(folder) / "scene.so"
    subprocess.run([os.environ.get("CC", "cc"), "-std=c99", "-O2", "-shared", "-fPIC",
                    str(HERE / "scene.c"), "-o", str(path)], check=True)
    return ctypes.CDLL(str(path))


def render(lib, line, wardrobe, count):
    """What scene.c draws: the picture, and the boxes with their labels."""
    scene = ctypes.create_string_buffer(ROOM)
    if lib.scene_parse(line.encode("ascii"), wardrobe, scene) != 0:
        raise SystemExit(f"scene.c refuses: {line}")
    rgb = np.zeros((sc.SIZE, sc.SIZE, 3), np.uint8)
    boxes = np.zeros((count, 5), np.intc)
    lib.scene_render(scene, wardrobe, rgb.ctypes.data_as(ctypes.c_void_p),
                     boxes.ctypes.data_as(ctypes.c_void_p))
    return rgb, boxes


def main():
    """Compares all scenes."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    wardrobe, differ = sc.read_wardrobe(HERE / "garments.bin"), 0
    with tempfile.TemporaryDirectory() as folder:
        lib, handle = build(folder), ctypes.create_string_buffer(ROOM)
        if lib.scene_wardrobe_load(os.fsencode(HERE / "garments.bin"), handle) != 0:
            raise SystemExit("scene.c cannot read garments.bin")
        scenes = sc.read_scenes(HERE / "scenes.txt")
        for scene in tqdm(scenes):
            picture, boxes = sc.render(scene, wardrobe)
            labels = [wardrobe.labels[i.garment] for i in scene.items]
            got, found = render(lib, sc.format_scene(scene), handle, len(boxes))
            differ += not (np.array_equal(got, picture) and
                           np.array_equal(found, np.column_stack([boxes, labels])))
        lib.scene_wardrobe_free(handle)
    print(f"{len(scenes)} scenes, {differ} differ")
    sys.exit(differ > 0)


if __name__ == "__main__":
    main()
