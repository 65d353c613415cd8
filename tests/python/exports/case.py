# SPDX-License-Identifier: MIT
"""A network of the suite: how it is made, fed, and where it is looked into."""

import zlib
from dataclasses import dataclass, field

import torch
from torch import nn

CASES = {}


@dataclass
class Case:
    """`shapes`: one a floating input; `tokens`: [shape, vocabulary] of integer inputs, which come first."""

    name: str
    make: object
    shapes: tuple
    layer: str
    tokens: tuple = ()
    free: tuple = (0,)          # axes of every input that a dynamic export leaves open
    other: tuple = ()           # shapes that a dynamic export runs with; empty: batch 3
    refusals: dict = field(default_factory=dict)  # exporter: what the exporter itself says
    refused: dict = field(default_factory=dict)   # exporter: an operator that libgradcam refuses


def case(name, make, *shapes, layer, **more):
    assert name not in CASES, name
    CASES[name] = Case(name, make, shapes, layer, **more)


def first(y):
    """The one output of a network that is looked at."""
    if isinstance(y, dict):
        return first(next(iter(y.values())))
    return first(y[0]) if isinstance(y, (tuple, list)) else y


class Watched(nn.Module):
    """The network with the activation of one of its modules as a second output."""

    def __init__(self, net, layer):
        super().__init__()
        self.net, self.layer = net, layer

    def forward(self, *inputs):
        seen = []
        hook = self.net.get_submodule(self.layer).register_forward_hook(lambda _m, _x, y: seen.append(first(y)))
        y = first(self.net(*inputs))
        hook.remove()
        return y, seen[-1]


def seed(name):
    torch.manual_seed(zlib.crc32(name.encode()))


@torch.no_grad()
def liven(net):
    """Weights that leave no part idle: layer scales, embeddings and norms that start at 0 or 1
    hide mistakes, and so does an attention whose logits are all alike."""
    for p in net.parameters():
        if not p.is_floating_point():
            continue
        if p.numel() == max([1, *p.shape]):  # scales, biases, temperatures
            zero = float(p.abs().max()) < 0.5
            p.normal_(0, 0.1) if zero and p.ndim == 1 else p.uniform_(0.5, 1.5)
        elif p.ndim >= 3 and p.shape[0] == 1:  # tokens and position embeddings
            p.normal_(0, 0.3)
        else:
            gain = 2 if p.ndim > 2 else 1
            p.normal_(0, (gain / p[0].numel()) ** 0.5)
    for m in batch_norms(net):  # most ReLUs open: half open, deep networks are chaotic, unlike trained ones
        m.weight.uniform_(0.4, 0.8)
        m.bias.normal_(0.7, 0.3)


def batch_norms(net):
    return [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.affine]


@torch.no_grad()
def settle(net, inputs):
    """Statistics of the batch norms from random pictures, as training would leave them."""
    norms = batch_norms(net)
    if norms:
        for m in norms:
            m.momentum = 1.0
        net.train()(*[torch.randn(8, *x.shape[1:]) if x.is_floating_point() else x.expand(8, *x.shape[1:])
                      for x in inputs])
        for m in norms:
            m.running_var.clamp_(min=0.1)
            m.momentum = 0.1
    net.eval()


def draw(c, shapes="given"):
    """Inputs of the case's shapes; of a batch of 2 ("example", as exporters need to keep the axis open);
    or of "other" shapes for what was exported with open axes."""
    plain = *(s for s, _ in c.tokens), *c.shapes
    if shapes == "example":
        plain = tuple((2, *s[1:]) for s in plain)
    elif shapes == "other":
        plain = c.other or tuple((3, *s[1:]) for s in plain)
    n = len(c.tokens)
    ids = [torch.randint(0, vocabulary, s) for s, (_, vocabulary) in zip(plain, c.tokens)]
    return tuple(ids + [torch.randn(s) for s in plain[n:]])


def build(c):
    """The network in evaluation mode."""
    seed(c.name)
    net = c.make()
    liven(net)
    settle(net, draw(c))
    return Watched(net, c.layer).eval()
