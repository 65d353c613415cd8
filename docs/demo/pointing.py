# SPDX-License-Identifier: MIT
"""Measures the network in PyTorch: accuracy and the pointing game with Grad-CAM.

Every garment in every scene is asked for.  A hit: the peak of its class's map
lies in the box drawn tightly around the garment.
"""

import argparse
import random

import numpy as np
import torch

import scenes as sc
from net import GarmentNet, grad_cam, inside, peak


def fresh_scenes(count, seed, dataset):
    """Scenes that may use every garment of the test part."""
    wardrobe = sc.read_dataset("t10k", dataset)
    rng, by_class = random.Random(seed), sc.index_by_class(wardrobe.labels)
    return [sc.sample_scene(rng, by_class) for _ in range(count)], wardrobe


def ask(net, scene, wardrobe):
    """For one scene: classes present, hits of their maps, the ten logits."""
    picture, boxes = sc.render(scene, wardrobe)
    image = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))).float().div(255)
    kinds = torch.tensor([int(wardrobe.labels[i.garment]) for i in scene.items])
    cam, logits = grad_cam(net, image.expand(len(kinds), -1, -1, -1), kinds)
    hits = inside(torch.from_numpy(boxes), *peak(cam, sc.SIZE))
    return kinds.numpy(), hits.numpy(), logits[0].numpy()


def measure(net, scenes, wardrobe):
    """(asked, hit) counts for each class, share of right yes/no answers, of perfect scenes."""
    asked, hit = np.zeros(10, int), np.zeros(10, int)
    right = perfect = 0
    for scene in scenes:
        kinds, hits, logits = ask(net, scene, wardrobe)
        np.add.at(asked, kinds, 1)
        np.add.at(hit, kinds, hits)
        same = (logits > 0) == (sc.targets(scene, wardrobe.labels) > 0)
        right, perfect = right + same.mean(), perfect + same.all()
    return asked, hit, right / len(scenes), perfect / len(scenes)


def parse_args():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default="garments.pt", help="what train.py wrote")
    parser.add_argument("--fresh", type=int, default=0,
                        help="ask this many new scenes of the whole test part instead")
    parser.add_argument("--seed", type=int, default=7, help="of the new scenes")
    parser.add_argument("--dataset", default=sc.DATASET, help="folder of Fashion-MNIST")
    return parser.parse_args()


def main():
    """Prints the rates."""
    args = parse_args()
    torch.set_num_threads(2)
    net = GarmentNet()
    net.load_state_dict(torch.load(args.weights))
    net.eval()
    if args.fresh:
        scenes, wardrobe = fresh_scenes(args.fresh, args.seed, args.dataset)
    else:
        scenes, wardrobe = sc.read_scenes("scenes.txt"), sc.read_wardrobe("garments.bin")
    asked, hit, right, perfect = measure(net, scenes, wardrobe)
    for name, a, h in zip(sc.CLASSES, asked, hit):
        print(f"{name:12} {100 * h / a:5.1f} % ({h} of {a})")
    print(f"yes/no answers right: {100 * right:.2f} %; scenes all right: {100 * perfect:.1f} %")
    print(f"pointing game: {100 * hit.sum() / asked.sum():.1f} % ({hit.sum()} of {asked.sum()})")


if __name__ == "__main__":
    main()
