# SPDX-License-Identifier: MIT
"""Occlusion, Score-CAM and Ablation-CAM, made of Run.perturb_scores.

    python perturb.py docs/demo/garments.onnx picture.png out.png
"""

import sys

import numpy as np

import gradcam


def normalize(a, axes):
    low, high = a.min(axes, keepdims=True), a.max(axes, keepdims=True)
    return (a - low) / (high - low + 1e-8)


def occlusion(run, height, width, window, stride, baseline=None, **target):
    """Zeiler 2014: how much the score falls where a window of the input is hidden; the mean
    over the windows that hide a pixel: [height, width]."""
    tops, lefts = range(0, height - window + 1, stride), range(0, width - window + 1, stride)
    masks = np.ones((len(tops) * len(lefts), height, width), np.float32)
    for mask, (y, x) in zip(masks, [(y, x) for y in tops for x in lefts]):
        mask[y:y + window, x:x + window] = 0
    scores = run.perturb_scores(masks=masks, baseline=baseline, **target)[:, 0]
    drops, hidden = run.report.score - scores, 1 - masks
    return np.tensordot(drops, hidden, 1) / np.maximum(hidden.sum(0), 1)


def ablation_cam(run, layer, **target):
    """Desai 2020: w_k = (y - y_k) / y, y_k being the score without channel k; the map is
    ReLU(sum_k w_k A_k): [h, w]."""
    run.watch(layer, gradcam.WATCH_VALUE)
    run.prepare()
    channels = run.spec(layer).shape[1]
    without = run.perturb_scores(layer, ablate=range(channels), **target)[:, 0]
    weights = (run.report.score - without) / run.report.score
    return np.maximum(np.tensordot(weights, run.value(layer)[0], 1), 0)


def score_cam(run, image, layer, chunk=64, **target):
    """Wang 2020: the input seen through each channel's activation; the scores, through a softmax,
    are the channels' weights: [h, w].  Masks are made a chunk at a time: all of them may be gigabytes."""
    run.watch(layer, gradcam.WATCH_VALUE)
    run.forward()
    activation = run.value(layer)[0]
    scores = []
    for first in range(0, len(activation), chunk):
        masks = normalize(gradcam.resize(activation[first:first + chunk], image.shape[2:], "align_corners"), (1, 2))
        scores.append(run.perturb_scores(masks=masks, batch=8, keep_forward=first > 0, **target)[:, 0])
    scores = np.concatenate(scores)
    weights = np.exp(scores - scores.max())
    return np.maximum(np.tensordot(weights / weights.sum(), activation, 1), 0)


def heat(map_, shape):
    """[height, width, 3] of 0..255, from blue over yellow to red."""
    m = gradcam.normalize(gradcam.resize(map_[None].astype(np.float32), shape))[0]
    colours = np.array([[0, 0, 96], [0, 128, 255], [255, 255, 0], [255, 0, 0]], np.float32)
    return np.stack([np.interp(m, [0, 1 / 3, 2 / 3, 1], colours[:, k]) for k in range(3)], -1)


def main(model, picture, out):
    from PIL import Image
    pixels = np.asarray(Image.open(picture).convert("RGB"), np.float32)
    image = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None] / 255)
    height, width = image.shape[2:]
    with gradcam.Run(gradcam.Net(model, gradcam.Context(threads=2))) as run:
        run.set_input(None, image)
        layer = run.candidate_layers()[0]
        maps = [occlusion(run, height, width, height // 6, height // 18, baseline=image.mean((2, 3), keepdims=True)),
                score_cam(run, image, layer), ablation_cam(run, layer), run.gradcam(layer=layer)[0]]
    panels = [pixels] + [0.45 * pixels + 0.55 * heat(m, (height, width)) for m in maps]
    Image.fromarray(np.concatenate(panels, 1).round().astype(np.uint8)).save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
