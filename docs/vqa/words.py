# SPDX-License-Identifier: MIT
"""Finds which column of the network's second input is which word and which
output is which answer: the order under which most training questions are
answered right; takes some minutes.
    python3 docs/vqa/words.py NETWORK DATA"""

import collections
import sys

import easy_vqa
import numpy as np

import gradcam  # found by easy_vqa

PICTURES = 400


def frequent(questions):
    """Words by their number in the questions, as a tokenizer numbers them: the start."""
    counts = collections.Counter(w for text, *_ in questions for w in easy_vqa.words_of(text))
    return ["-"] + [word for word, _ in counts.most_common()]


class Head:
    """Everything behind the picture's branch, for many questions at once."""

    def __init__(self, network, data):
        self.run = gradcam.Run(network)
        self.questions = [q for q in data.questions if q[2] < PICTURES]
        for name in ("dense_1_tanh", "dense_6"):
            self.run.watch(name)
        self.answer_words = sorted({answer for _, answer, _ in self.questions})
        self.want = np.array([self.answer_words.index(answer) for _, answer, _ in self.questions])
        self.bags = np.concatenate([easy_vqa.bag(text, frequent(data.questions)) for text, *_ in self.questions])
        self.features = self.see(data)

    def see(self, data):
        self.run.set_input("input_2", self.bags[:1])
        seen = []
        for number in range(PICTURES):
            self.run.set_input("input_1", easy_vqa.pixels(data.image(number)))
            self.run.forward()
            seen.append(self.run.value("dense_1_tanh")[0])
        return np.array(seen)[[number for *_, number in self.questions]]


class Weights:
    """The head in numpy, where another order of columns costs nothing."""

    def __init__(self, path):
        import onnx
        graph = onnx.load(path).graph
        self.w = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}

    def dense(self, x, name):
        return x @ self.w[name + "_w"].T + self.w[name + "_b"]

    def outputs(self, bags, features):
        for name in ("dense_2", "dense_3", "dense_4"):
            bags = np.tanh(self.dense(bags, name))
        return self.dense(np.tanh(self.dense(features * bags, "dense_5")), "dense_6").argmax(1)


def score(head, weights, order):
    """(right answers, which answer each output most often stands for)."""
    got = weights.outputs(head.bags[:, order], head.features)
    table = np.zeros((13, 13), int)
    np.add.at(table, (got, head.want), 1)
    return table.max(1).sum(), table.argmax(1)


def climb(head, weights):
    """Swaps the two columns that help most until none does."""
    order = np.arange(head.bags.shape[1])
    best = score(head, weights, order)[0]
    while True:
        tries = []
        for i, j in ((i, j) for i in range(len(order)) for j in range(i)):
            other = order.copy()
            other[[i, j]] = other[[j, i]]
            tries.append((score(head, weights, other)[0], i, j))
        most, i, j = max(tries)
        if most <= best:
            return order, best
        order[[i, j]] = order[[j, i]]
        best = most
        print(f"{best / len(head.want):.4f} right of {len(head.want)}", file=sys.stderr)


def main(network, path):
    data = easy_vqa.Data(path, "train")
    head, weights = Head(gradcam.Net(network), data), Weights(network)
    order, _ = climb(head, weights)
    names = frequent(data.questions)
    print(" ".join(names[k] for k in order))
    print(" ".join(head.answer_words[k] for k in score(head, weights, order)[1]))


if __name__ == "__main__":
    main(*sys.argv[1:])
