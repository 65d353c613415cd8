# SPDX-License-Identifier: MIT
"""The pointing game on easy-VQA: does the peak of the map for the given answer
lie on the one shape of the picture, and does the map follow the question?

    python3 docs/vqa/pointing.py NETWORK DATA [QUESTIONS]

DATA is the folder or archive of the data set, QUESTIONS how many test questions
to take (all).  Prints the tables of README.md."""

import collections
import sys

import easy_vqa
import numpy as np

import gradcam  # found by easy_vqa

LAYERS = ("conv2d_1", "conv2d_2", "conv2d_3")
NEAR = 2  # pixels of 64: as the 15 of some 500 that are usual in pointing games


def normal(name, **options):
    """Grad-CAM as the library gives it, at every layer."""
    return name, lambda asked: dict(zip(LAYERS, (m[0] for m in asked.run.gradcam_layers(
        LAYERS, index=asked.answer, **options))))


def magnitude(maps):
    return {layer: np.abs(m) for layer, m in maps.items()}


def signed(asked):
    return {layer: (g.mean((1, 2), keepdims=True) * a).sum(0) for layer, (a, _, g) in asked.layers.items()}


def against_empty(asked):
    """Selvaraju 2017, eq. 1 and 2 without ReLU, for what the picture adds to the empty one."""
    return {layer: (g.mean((1, 2), keepdims=True) * (a - empty)).sum(0)
            for layer, (a, empty, g) in asked.layers.items()}


def by_position(asked):
    """Gradient times activation, summed over channels: the average of eq. 1 left out."""
    return {layer: (g * a).sum(0) for layer, (a, _, g) in asked.layers.items()}


METHODS = dict([
    normal("Grad-CAM"),
    ("|signed Grad-CAM|", lambda asked: magnitude(signed(asked))),
    ("|signed Grad-CAM - empty picture|", lambda asked: magnitude(against_empty(asked))),
    ("gradient x activation", by_position),
    ("|gradient x activation|", lambda asked: magnitude(by_position(asked))),
    normal("Grad-CAM, grad=positive", grad="positive"),
    normal("Grad-CAM, grad=abs", grad="abs"),
])
# The maps whose correlations are compared: with their signs.
COMPARED = {"signed Grad-CAM": signed, "gradient x activation": by_position,
            "Grad-CAM, grad=positive": METHODS["Grad-CAM, grad=positive"],
            "Grad-CAM, grad=abs": METHODS["Grad-CAM, grad=abs"]}


class Asked:
    """One question about one picture, answered: the run, the answer's index, and of
    every layer the activation, that of the empty picture, and the gradient."""

    def __init__(self, player, image, question):
        self.run = player.run
        columns, empty = easy_vqa.bag(question), np.broadcast_to(easy_vqa.background(image), image.shape)
        for run, seen in ((player.run, image), (player.empty, empty)):
            run.set_input("input_1", easy_vqa.pixels(seen))
            run.set_input("input_2", columns)
            run.forward()
        self.answer = int(self.run.value("dense_6")[0].argmax())
        seed = np.zeros((1, 13), np.float32)
        seed[0, self.answer] = 1
        self.run.backward("dense_6", seed)
        self.layers = {layer: (self.run.value(layer)[0], player.empty.value(layer)[0], self.run.gradient(layer)[0])
                       for layer in LAYERS}


class Player:
    def __init__(self, network):
        net = gradcam.Net(network)
        self.run, self.empty = gradcam.Run(net), gradcam.Run(net)
        for run in (self.run, self.empty):
            for name in (*LAYERS, "dense_6"):
                run.watch(name)

    def ask(self, image, question):
        return Asked(self, image, question)


def peak(heat):
    """Where the map, resized to the picture, is largest; None where it is zero everywhere."""
    big = gradcam.resize(heat, (easy_vqa.SIDE,) * 2)
    return None if big.max() <= 0 else np.unravel_index(big.argmax(), big.shape)


def distances(mask):
    """Of every pixel the distance in pixels to the nearest of the shape."""
    ys, xs = np.nonzero(mask)
    grid = np.arange(easy_vqa.SIDE)
    dy, dx = np.abs(grid[:, None] - ys), np.abs(grid[:, None] - xs)
    return np.sqrt((dy[:, None, :] ** 2 + dx[None, :, :] ** 2).min(2))


class Score:
    """Of one method and layer: how far from the shape the peaks lie."""

    def __init__(self):
        self.far, self.elsewhere, self.border = [], [], []

    def add(self, heat, away, other):
        at = peak(heat)
        self.far.append(np.inf if at is None else away[at])
        self.elsewhere.append(at is not None and other[at] == 0)
        edge = easy_vqa.SIDE // heat.shape[0]
        self.border.append(at is not None and (min(at) < edge or max(at) >= easy_vqa.SIDE - edge))

    def row(self):
        far = np.array(self.far)
        missed = far > 0
        border = np.mean(np.array(self.border)[missed]) if missed.any() else 0
        return [100 * np.mean(x) for x in (far == 0, far <= NEAR, self.elsewhere)] + [100 * border]


def pairs_of(asked):
    """Of two questions about a picture: do they ask for the same evidence?"""
    for i in range(len(asked)):
        for j in range(i):
            one, two = asked[i][1], asked[j][1]
            if one == two:
                yield ("same evidence, same answer" if asked[i][2] == asked[j][2] else
                       "same evidence, other answer"), i, j
            elif one[0] == two[0] and one[1] != two[1]:
                yield f"{one[0]}: colour and shape", i, j


def compare(found, asked):
    """Correlations of the maps of one picture's questions: those answered right."""
    for name, layer in {key for heats, *_ in asked for key in heats}:
        rows = np.stack([heats[name, layer].ravel() for heats, *_ in asked])
        rows = rows - rows.mean(1, keepdims=True)
        rows /= np.maximum(np.sqrt((rows ** 2).sum(1, keepdims=True)), 1e-30)
        table = rows @ rows.T
        for kind, i, j in pairs_of(asked):
            found[name, layer, kind].append(table[i, j])


class Game:
    """All questions of a part of the data set."""

    def __init__(self, network, data, limit):
        self.player, self.data = Player(network), data
        self.asked = self.right = 0
        self.scores, self.correlations = collections.defaultdict(Score), collections.defaultdict(list)
        self.by_image = collections.defaultdict(list)
        for question, answer, number in data.questions[:limit]:
            self.by_image[number].append((question, answer))
        self.away = {n: distances(easy_vqa.shape_mask(data.image(n))) for n in self.by_image}

    def play(self):
        numbers = sorted(self.by_image)
        for k, number in enumerate(numbers):
            other = self.away[numbers[k - len(numbers) // 2]]
            asked = [self.ask(number, other, *q) for q in self.by_image[number]]
            compare(self.correlations, [a for a in asked if a is not None])
        return self

    def ask(self, number, other, question, answer):
        """Scores one question; what compare() needs, or None if the answer is wrong."""
        it = self.player.ask(self.data.image(number), question)
        self.asked += 1
        if easy_vqa.ANSWERS[it.answer] != answer:
            return None
        self.right += 1
        for name, method in METHODS.items():
            for layer, heat in method(it).items():
                self.scores[name, layer].add(heat, self.away[number], other)
        heats = {(name, layer): heat for name, method in COMPARED.items() for layer, heat in method(it).items()}
        return heats, easy_vqa.evidence(question), it.answer


def table(titles, rows, form):
    print("| " + " | ".join(titles) + " |\n|---|---|" + "--:|" * (len(titles) - 2))
    for (name, layer), values in rows:
        print(f"| {name.replace('|', chr(92) + '|')} | {layer} | " + " | ".join(form % v for v in values) + " |")
    print()


def main(network, path, limit=None):
    game = Game(network, easy_vqa.Data(path), int(limit) if limit else None).play()
    print(f"{game.asked} questions, {game.right} answered right ({100 * game.right / game.asked:.1f} %)\n")
    table(["map", "layer", "on the shape", f"within {NEAR} pixels", "on another picture's", "misses at the border"],
          [(key, score.row()) for key, score in game.scores.items()], "%.1f %%")
    found = game.correlations
    kinds = sorted({kind for *_, kind in found})
    counts = [len(found[next(iter(COMPARED)), LAYERS[0], kind]) for kind in kinds]
    table(["map", "layer", *(f"{kind} ({n})" for kind, n in zip(kinds, counts))],
          [(key, [np.mean(found[(*key, kind)]) for kind in kinds]) for key in sorted({k[:2] for k in found})], "%.2f")


if __name__ == "__main__":
    main(*sys.argv[1:])
