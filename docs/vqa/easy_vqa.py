# SPDX-License-Identifier: MIT
"""The easy-VQA data set and what the network makes of it: questions as bags of
words, pictures as arrays, answers as words; where the shape of a picture is."""

import io
import json
import os
import pathlib
import re
import sys
import tarfile

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bindings" / "python"))
if (ROOT / "build" / "libgradcam.so").exists():
    os.environ.setdefault("GRADCAM_LIBRARY", str(ROOT / "build" / "libgradcam.so"))

SIDE = 64
COLOURS = "black blue brown gray green red teal yellow".split()
SHAPES = "circle rectangle triangle".split()

# The network's file does not say which column is which word, nor which output
# is which answer.  words.py finds both from the training questions.
WORDS = ("- is shape the a image there not what contain does in present color no triangle rectangle circle teal gray "
         "brown blue green yellow red black of").split()
ANSWERS = "green triangle no rectangle gray red blue yes circle black yellow brown teal".split()


class Data:
    """A folder or archive of the data set; `part` is "test" or "train"."""

    def __init__(self, path, part="test"):
        self._archive = tarfile.open(path) if pathlib.Path(path).is_file() else None
        self._root, self._part = pathlib.Path(path), part
        if self._archive:
            self._members = {m.name.split("data/", 1)[-1]: m for m in self._archive if m.isfile()}
        self.questions = [tuple(q) for q in json.loads(self._read(f"{part}/questions.json"))]
        self._images = {}

    def _read(self, name):
        if self._archive:
            return self._archive.extractfile(self._members[name]).read()
        found = [p for p in (self._root / name, self._root / "data" / name, self._root / "easy_vqa" / "data" / name)
                 if p.exists()]
        if not found:
            raise FileNotFoundError(f"{self._root} holds no {name}")
        return found[0].read_bytes()

    def image(self, number):
        """uint8 [64, 64, 3]."""
        if number not in self._images:
            data = self._read(f"{self._part}/images/{number}.png")
            self._images[number] = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        return self._images[number]


def words_of(question):
    return re.findall("[a-z]+", question.lower())


def bag(question, words=WORDS):
    """[1, 27]: 1 in the column of every word of the question."""
    columns = np.zeros((1, len(words)), np.float32)
    columns[0, [words.index(w) for w in words_of(question)]] = 1
    return columns


def pixels(image):
    """[1, 3, 64, 64], x / 255 - 0.5."""
    return np.ascontiguousarray((image.astype(np.float32) / 255 - 0.5).transpose(2, 0, 1)[None])


def background(image):
    """The one colour that most pixels have: uint8 [3]."""
    colours, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
    return colours[counts.argmax()]


def shape_mask(image):
    """bool [64, 64]: pixels whose colour is further than 60 (of 765) from the
    background, which leaves out the faint half of the smoothed edge."""
    return np.abs(image.astype(int) - background(image).astype(int)).sum(2) > 60


def evidence(question):
    """What of the picture the question asks for: (form, what, which)."""
    words = words_of(question)
    if words[0] == "what":
        return ("what", "colour" if "color" in words else "shape", None)
    colours, shapes = [w for w in words if w in COLOURS], [w for w in words if w in SHAPES]
    return ("is", "colour", colours[0]) if colours else ("is", "shape", shapes[0])
