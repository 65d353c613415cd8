# SPDX-License-Identifier: MIT
"""Trains the demo network on scenes of Fashion-MNIST garments.

The network learns from one fact per scene and class: is such a garment in the
picture?  It is never told where.  The last 5,000 garments of the training
part are kept for validation; the test part is not touched.
"""

import argparse
import random
import time
from functools import partial
from multiprocessing import Pool

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

import scenes as sc
from net import GarmentNet, extent, grad_cam, inside, peak

CHUNK = 250          # scenes drawn from one random generator
HELD_OUT = 5000      # garments of the training part kept for validation


def make_chunk(key, wardrobe):
    """CHUNK scenes that depend only on the key: pictures, targets, boxes by class."""
    rng = random.Random(key)
    by_class = sc.index_by_class(wardrobe.labels)
    images = np.empty((CHUNK, sc.SIZE, sc.SIZE, 3), np.uint8)
    hot = np.zeros((CHUNK, len(sc.CLASSES)), np.float32)
    boxes = np.zeros((CHUNK, len(sc.CLASSES), 4), np.int64)
    for k in range(CHUNK):
        scene = sc.sample_scene(rng, by_class)
        images[k], found = sc.render(scene, wardrobe)
        hot[k] = sc.targets(scene, wardrobe.labels)
        boxes[k, [wardrobe.labels[i.garment] for i in scene.items]] = found
    return images, hot, boxes


def make_data(count, seed, wardrobe, workers):
    """`count` scenes (rounded up to whole chunks) drawn by several processes."""
    keys = [f"{seed}/{k}" for k in range(-(-count // CHUNK))]
    with Pool(workers) as pool:
        chunks = pool.imap(partial(make_chunk, wardrobe=wardrobe), keys)
        parts = list(tqdm(chunks, total=len(keys), desc="drawing", mininterval=5))
    return tuple(torch.from_numpy(np.concatenate(column)) for column in zip(*parts))


def augment(images):
    """uint8 [n, h, w, 3] -> float [n, 3, h, w] in 0..1, mirrored and recoloured."""
    x = images.permute(0, 3, 1, 2).float().div_(255)
    x = x[:, torch.randperm(3)]
    if torch.rand(()) < 0.5:
        x = x.flip(3)
    gain = 0.8 + 0.4 * torch.rand(len(x), 1, 1, 1)
    return (x * gain).clamp_(0, 1).contiguous(memory_format=torch.channels_last)


def evaluate(net, images, hot, boxes, batch=125):
    """(accuracy of the ten yes/no answers, pointing-game rate) over some scenes."""
    net.eval()
    right = hits = asked = 0
    for k in range(0, len(images), batch):
        x = images[k:k + batch].permute(0, 3, 1, 2).float().div(255)
        scene, kind = torch.nonzero(hot[k:k + batch], as_tuple=True)
        cam, logits = grad_cam(net, x[scene], kind)
        with torch.no_grad():
            right += int(((net(x) > 0) == (hot[k:k + batch] > 0.5)).sum())
        hits += int(inside(boxes[k:k + batch][scene, kind], *peak(cam, sc.SIZE)).sum())
        asked += len(scene)
    net.train()
    return right / hot.numel(), hits / asked


def train(net, data, args, report):
    """One-cycle AdamW on binary cross-entropy, and on compact maps if asked for."""
    images, hot, _ = data
    steps = len(images) // args.batch
    optimiser = torch.optim.AdamW(net.parameters(), lr=args.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, args.rate, pct_start=0.15,
                                                   total_steps=steps * args.epochs)
    for epoch in range(args.epochs):
        order, total = torch.randperm(len(images)), 0.0
        bar = tqdm(range(steps), desc=f"epoch {epoch + 1}", mininterval=10)
        for k in bar:
            pick = order[k * args.batch:(k + 1) * args.batch]
            maps = net.features(augment(images[pick]))
            loss = nn.functional.binary_cross_entropy_with_logits(net.answer(maps), hot[pick])
            if args.compact > 0:
                loss = loss + args.compact * extent(net, maps, hot[pick])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
            bar.set_postfix(loss=f"{total / (k + 1):.4f}", refresh=False)
        report(epoch, total / steps)


def split(wardrobe):
    """(garments to train on, garments to validate on)."""
    return (sc.Wardrobe(wardrobe.labels[:-HELD_OUT], wardrobe.pixels[:-HELD_OUT]),
            sc.Wardrobe(wardrobe.labels[-HELD_OUT:], wardrobe.pixels[-HELD_OUT:]))


def parse_args():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default=sc.DATASET, help="folder of Fashion-MNIST")
    parser.add_argument("--scenes", type=int, default=72000, help="training scenes")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=4e-3, help="peak learning rate")
    parser.add_argument("--compact", type=float, default=0.0,
                        help="weight of a loss on the extent of the class's maps")
    parser.add_argument("--start", help="weights to start from")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", default="garments.pt", help="weights, written each epoch")
    return parser.parse_args()


def main():
    """Draws the scenes, trains, and writes the weights."""
    args, start = parse_args(), time.time()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    fit, held_out = split(sc.read_dataset("train", args.dataset))
    data = make_data(args.scenes, f"train {args.seed}", fit, args.threads)
    check = make_data(1000, "validation", held_out, args.threads)
    net = GarmentNet().to(memory_format=torch.channels_last)
    if args.start:
        net.load_state_dict(torch.load(args.start))

    def report(epoch, loss):
        accuracy, rate = evaluate(net, *check)
        torch.save(net.state_dict(), args.out)
        print(f"epoch {epoch + 1}: loss {loss:.4f}, validation accuracy {accuracy:.4f}, "
              f"pointing game {rate:.4f}, {time.time() - start:.0f} s", flush=True)

    train(net, data, args, report)


if __name__ == "__main__":
    main()
