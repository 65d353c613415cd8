# SPDX-License-Identifier: MIT
"""Writes garments.bin, scenes.txt and a few sample pictures from Fashion-MNIST.

Only the test part of the data set is used: 100 garments of each class, drawn
at random, and 500 scenes with them.
"""

import argparse
import random
from pathlib import Path

import numpy as np
from tqdm import tqdm

import scenes as sc

HEADER = """\
# Test scenes of the demo, one a line, whole numbers; README.md gives the meaning.
# seed cells(4) mix grain dark(rgb) light(rgb)
# | count, each: kind x y w h rgb opacity
# | count, each: garment x y size flip rgb
"""


def choose_garments(wardrobe, per_class, rng):
    """A small wardrobe with `per_class` garments of each class, class by class."""
    by_class = sc.index_by_class(wardrobe.labels)
    pick = np.array([g for garments in by_class for g in sorted(rng.sample(garments, per_class))])
    return sc.Wardrobe(wardrobe.labels[pick], wardrobe.pixels[pick])


def parse_args():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default=sc.DATASET, help="folder of Fashion-MNIST")
    parser.add_argument("--per-class", type=int, default=100, help="garments of each class")
    parser.add_argument("--count", type=int, default=500, help="scenes")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--samples", type=int, nargs="*", default=[],
                        help="numbers of the scenes to write as PPM files")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder to write to")
    return parser.parse_args()


def write_samples(folder, scenes, wardrobe, numbers):
    """Writes some scenes as folder/scenes/NNN.ppm."""
    (folder / "scenes").mkdir(exist_ok=True)
    for k in numbers:
        sc.write_ppm(folder / "scenes" / f"{k:03d}.ppm", sc.render(scenes[k], wardrobe)[0])


def main():
    """Writes the files."""
    args = parse_args()
    rng = random.Random(args.seed)
    wardrobe = choose_garments(sc.read_dataset("t10k", args.dataset), args.per_class, rng)
    by_class = sc.index_by_class(wardrobe.labels)
    scenes = [sc.sample_scene(rng, by_class) for _ in tqdm(range(args.count))]
    sc.write_wardrobe(args.out / "garments.bin", wardrobe)
    text = HEADER + "".join(sc.format_scene(s) + "\n" for s in scenes)
    (args.out / "scenes.txt").write_text(text, encoding="ascii")
    write_samples(args.out, scenes, wardrobe, args.samples)


if __name__ == "__main__":
    main()
