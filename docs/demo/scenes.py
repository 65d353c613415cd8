# SPDX-License-Identifier: MIT
"""Scenes of Fashion-MNIST garments: sampling, rendering, reading and writing.

A scene is described by whole numbers only (see Scene) and rendered with whole
numbers only, so that scene.c beside this file draws the same bytes.
README.md gives the algorithm in full.
"""

import colorsys
import gzip
import struct
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

SIZE = 112      # a scene is SIZE x SIZE pixels, RGB
SIDE = 28       # a garment is SIDE x SIDE pixels, grey
SHADOW = 2      # a garment's shadow lies this many pixels right and below
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
           "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
DATASET = Path("/usr/share/datasets/fashion-mnist")
MAGIC = b"GARMENT1"


@dataclass
class Shape:
    """A patch of clutter: kind 0 is an ellipse, kind 1 a rectangle."""

    kind: int
    x: int
    y: int
    w: int
    h: int
    colour: tuple
    opacity: int


@dataclass
class Item:
    """A garment in a scene: its number in the wardrobe, place, size, tint."""

    garment: int
    x: int
    y: int
    size: int
    flip: int
    tint: tuple


@dataclass
class Scene:
    """Everything that is needed to draw one picture."""

    seed: int        # of the generator behind the texture
    cells: tuple     # (w, h) of the coarse lattice, (w, h) of the fine one
    mix: int         # weight of the coarse lattice, 0..256
    grain: int       # amplitude of the grain, 0..255
    dark: tuple      # RGB where the texture is 0
    light: tuple     # RGB where the texture is 255
    shapes: list = field(default_factory=list)
    items: list = field(default_factory=list)


@dataclass
class Wardrobe:
    """Garments: labels [n] and pixels [n, 28, 28], both uint8."""

    labels: np.ndarray
    pixels: np.ndarray


# ---- data -------------------------------------------------------------------

def read_idx(path):
    """Reads one gzip-compressed IDX file of unsigned bytes."""
    with gzip.open(path, "rb") as stream:
        ndim = struct.unpack(">HBB", stream.read(4))[2]
        shape = struct.unpack(f">{ndim}I", stream.read(4 * ndim))
        return np.frombuffer(stream.read(), np.uint8).reshape(shape)


def read_dataset(part, folder=DATASET):
    """The wardrobe of one part of Fashion-MNIST, "train" or "t10k"."""
    folder = Path(folder)
    return Wardrobe(read_idx(folder / f"{part}-labels-idx1-ubyte.gz"),
                    read_idx(folder / f"{part}-images-idx3-ubyte.gz"))


def write_wardrobe(path, wardrobe):
    """Magic, count (uint32, little-endian), labels, pixels."""
    with open(path, "wb") as stream:
        stream.write(MAGIC + struct.pack("<I", len(wardrobe.labels)))
        stream.write(wardrobe.labels.tobytes() + wardrobe.pixels.tobytes())


def read_wardrobe(path):
    """Reads what write_wardrobe wrote."""
    data = Path(path).read_bytes()
    if data[:8] != MAGIC:
        raise ValueError(f"{path}: not a file of garments")
    count = struct.unpack_from("<I", data, 8)[0]
    body = np.frombuffer(data, np.uint8, offset=12)
    return Wardrobe(body[:count], body[count:].reshape(count, SIDE, SIDE))


def format_scene(scene):
    """One line: background, clutter after the first bar, garments after the second."""
    words = [scene.seed, *scene.cells, scene.mix, scene.grain, *scene.dark, *scene.light]
    words += ["|", len(scene.shapes)]
    for s in scene.shapes:
        words += [s.kind, s.x, s.y, s.w, s.h, *s.colour, s.opacity]
    words += ["|", len(scene.items)]
    for i in scene.items:
        words += [i.garment, i.x, i.y, i.size, i.flip, *i.tint]
    return " ".join(map(str, words))


def parse_scene(line):
    """The scene that format_scene wrote."""
    back, shapes, items = ([int(w) for w in part.split()] for part in line.split("|"))
    scene = Scene(back[0], tuple(back[1:5]), back[5], back[6], tuple(back[7:10]),
                  tuple(back[10:13]))
    for k in range(shapes[0]):
        v = shapes[1 + 9 * k:10 + 9 * k]
        scene.shapes.append(Shape(*v[:5], tuple(v[5:8]), v[8]))
    for k in range(items[0]):
        v = items[1 + 8 * k:9 + 8 * k]
        scene.items.append(Item(*v[:5], tuple(v[5:8])))
    return scene


def read_scenes(path):
    """All scenes of a file; lines that begin with # are comments."""
    lines = Path(path).read_text(encoding="ascii").splitlines()
    return [parse_scene(line) for line in lines if line and not line.startswith("#")]


def write_ppm(path, rgb):
    """Writes a binary PPM file."""
    head = f"P6\n{rgb.shape[1]} {rgb.shape[0]}\n255\n".encode("ascii")
    Path(path).write_bytes(head + np.ascontiguousarray(rgb).tobytes())


# ---- rendering: whole numbers only, the same steps as in scene.c -------------

@lru_cache(maxsize=None)
def lcg_jump(count):
    """Factors and offsets with state[k] = factor[k] * seed + offset[k], k >= 1 steps."""
    factor, offset = np.empty(count, np.uint32), np.empty(count, np.uint32)
    f, o = 1, 0
    for k in range(count):
        f, o = f * 1664525 % 2**32, (o * 1664525 + 1013904223) % 2**32
        factor[k], offset[k] = f, o
    return factor, offset


def lcg_bytes(seed, count):
    """The top bytes of the next `count` states and the last state."""
    factor, offset = lcg_jump(SIZE * SIZE)
    state = factor[:count] * np.uint32(seed) + offset[:count]
    return (state >> np.uint32(24)).astype(np.int32), int(state[-1])


def value_noise(seed, cell_w, cell_h):
    """A bilinear blend of a lattice of random bytes, [SIZE, SIZE] in 0..255, and a new seed."""
    cols, rows = SIZE // cell_w + 2, SIZE // cell_h + 2
    points, seed = lcg_bytes(seed, cols * rows)
    grid, at = points.reshape(rows, cols), np.arange(SIZE, dtype=np.int32)
    x, fx = at // cell_w, at % cell_w
    y, fy = at // cell_h, (at % cell_h)[:, None]
    mixed = grid[y] * (cell_h - fy) + grid[y + 1] * fy
    total = mixed[:, x] * (cell_w - fx) + mixed[:, x + 1] * fx
    return total // (cell_w * cell_h), seed


def blend(under, over, alpha):
    """Mixes by alpha in 0..255, rounded."""
    return (under * (255 - alpha) + over * alpha + 127) // 255


def planes(colour):
    """A colour as [3, 1, 1] to go with pictures kept as [3, SIZE, SIZE]."""
    return np.array(colour, np.int32)[:, None, None]


def draw_shape(image, texture, shape):
    """Lays an ellipse or rectangle over the image; the texture makes it uneven."""
    rows = slice(max(shape.y, 0), max(min(shape.y + shape.h, SIZE), 0))
    cols = slice(max(shape.x, 0), max(min(shape.x + shape.w, SIZE), 0))
    alpha = shape.opacity * (192 + texture[rows, cols] // 4) // 255
    if shape.kind == 0:
        dy = (2 * (np.arange(rows.start, rows.stop) - shape.y) + 1 - shape.h)[:, None]
        dx = (2 * (np.arange(cols.start, cols.stop) - shape.x) + 1 - shape.w)[None]
        w2, h2 = shape.w * shape.w, shape.h * shape.h
        alpha = np.where(dx * dx * h2 + dy * dy * w2 <= w2 * h2, alpha, 0)
    part = image[:, rows, cols]
    part[:] = blend(part, planes(shape.colour), alpha)


def background(scene):
    """Texture, clutter, grain: [3, SIZE, SIZE] int32 in 0..255."""
    cw, ch, fw, fh = scene.cells
    coarse, seed = value_noise(scene.seed, cw, ch)
    fine, seed = value_noise(seed, fw, fh)
    texture = (coarse * scene.mix + fine * (256 - scene.mix)) >> 8
    image = blend(planes(scene.dark), planes(scene.light), texture)
    for shape in scene.shapes:
        draw_shape(image, texture, shape)
    noise, _ = lcg_bytes(seed, SIZE * SIZE)
    speck = noise.reshape(SIZE, SIZE) * scene.grain // 256
    return np.clip(image + (speck - scene.grain // 2), 0, 255)


@lru_cache(maxsize=None)
def scale_table(size):
    """Left sample and weight of the right one (0..255) for each of `size` pixels."""
    u = (2 * np.arange(size) + 1) * (SIDE * 128) // size - 128
    u = np.clip(u, 0, (SIDE - 1) * 256)
    left = np.minimum(u >> 8, SIDE - 2)
    return left, u - left * 256


def scale_garment(pixels, item):
    """The garment's grey values at item.size x item.size, bilinear, perhaps mirrored."""
    left, f = scale_table(item.size)
    p = pixels.astype(np.int32)
    rows = p[left] * (256 - f)[:, None] + p[left + 1] * f[:, None]
    grey = (rows[:, left] * (256 - f) + rows[:, left + 1] * f + 32768) >> 16
    return grey[:, ::-1] if item.flip else grey


def coverage(grey):
    """Opacity of a garment's pixel: nothing below 16, full from 58 on."""
    return np.clip((grey - 16) * 6, 0, 255)


def tight_box(alpha, x, y):
    """The box (x0, y0, x1, y1), half-open, around all that is at least half opaque."""
    cols, rows = (np.flatnonzero((alpha >= 128).any(axis)) for axis in (0, 1))
    if not len(cols):
        return x, y, x + alpha.shape[1], y + alpha.shape[0]
    return (x + int(cols[0]), y + int(rows[0]), x + int(cols[-1]) + 1, y + int(rows[-1]) + 1)


def draw_item(image, pixels, item):
    """Draws the shadow and the tinted garment; gives its box."""
    grey = scale_garment(pixels, item)
    alpha = coverage(grey)
    y, x, s = item.y, item.x, item.size
    h, w = min(s, SIZE - y - SHADOW), min(s, SIZE - x - SHADOW)
    under = image[:, y + SHADOW:y + SHADOW + h, x + SHADOW:x + SHADOW + w]
    under[:] = under * (510 - alpha[:h, :w]) // 510
    place = image[:, y:y + s, x:x + s]
    place[:] = blend(place, planes(item.tint) * (64 + grey * 191 // 255) // 255, alpha)
    return tight_box(alpha, x, y)


def render(scene, wardrobe):
    """The picture [SIZE, SIZE, 3] uint8 and the boxes [n, 4] of its garments."""
    image = background(scene)
    boxes = [draw_item(image, wardrobe.pixels[i.garment], i) for i in scene.items]
    return image.astype(np.uint8).transpose(1, 2, 0), np.array(boxes)


# ---- sampling; rng is a random.Random -----------------------------------------

def hsv(hue, saturation, value):
    """A colour as three bytes; arguments in 0..1, the hue modulo 1."""
    rgb = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return tuple(int(255 * c + 0.5) for c in rgb)


def sample_shape(rng):
    """A random patch of clutter, partly outside perhaps."""
    w, h = rng.randint(6, 63), rng.randint(6, 63)
    x, y = rng.randrange(SIZE) - w // 2, rng.randrange(SIZE) - h // 2
    colour = hsv(rng.random(), rng.uniform(0.1, 0.6), rng.uniform(0.25, 0.9))
    return Shape(rng.randrange(2), x, y, w, h, colour, rng.randint(60, 200))


def sample_background(rng):
    """A random texture between two shades of similar hue, with clutter on it."""
    cells = (*rng.choices((8, 16, 28, 56), k=2), *rng.choices((2, 3, 4, 7, 14), k=2))
    hue, value = rng.random(), rng.uniform(0.2, 0.55)
    dark = hsv(hue, rng.uniform(0.05, 0.45), value)
    light = hsv(hue + rng.uniform(-0.12, 0.12), rng.uniform(0.05, 0.45),
                value + rng.uniform(0.15, 0.4))
    scene = Scene(rng.getrandbits(32), cells, rng.randint(64, 224), rng.randint(8, 40),
                  dark, light)
    scene.shapes = [sample_shape(rng) for _ in range(rng.randint(2, 6))]
    return scene


def apart(x, y, size, items):
    """Whether a square keeps a pixel clear of those placed already."""
    return all(x > i.x + i.size or i.x > x + size or
               y > i.y + i.size or i.y > y + size for i in items)


def place_items(rng, garments):
    """Items at random places that do not overlap, or None if they do not fit."""
    items = []
    for garment in garments:
        for _ in range(20):
            size = rng.randint(30, 50)
            x, y = rng.randint(0, SIZE - size), rng.randint(0, SIZE - size)
            if apart(x, y, size, items):
                tint = hsv(rng.random(), rng.uniform(0.25, 0.9), rng.uniform(0.75, 1.0))
                items.append(Item(garment, x, y, size, rng.randrange(2), tint))
                break
        else:
            return None
    return items


def sample_scene(rng, by_class):
    """A scene of 2 to 4 garments of different classes; by_class[c] lists garments."""
    scene = sample_background(rng)
    count = rng.randint(2, 4)
    items = None
    while items is None:
        kinds = rng.sample(range(len(CLASSES)), count)
        items = place_items(rng, [rng.choice(by_class[k]) for k in kinds])
    scene.items = items
    return scene


def index_by_class(labels):
    """For each class the numbers of its garments."""
    return [np.flatnonzero(labels == c).tolist() for c in range(len(CLASSES))]


def targets(scene, labels):
    """Multi-hot vector [10] of the classes in a scene."""
    hot = np.zeros(len(CLASSES), np.float32)
    hot[[labels[i.garment] for i in scene.items]] = 1.0
    return hot
