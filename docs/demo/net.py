# SPDX-License-Identifier: MIT
"""The demo network, its Grad-CAM in PyTorch, and the pointing game."""

import torch
from torch import nn

CLASSES = 10


def block(fan_in, fan_out, pool=False):
    """Convolution 3x3, perhaps max pooling, batch normalisation, ReLU."""
    layers = [nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False)]
    layers += [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(*layers, nn.BatchNorm2d(fan_out), nn.ReLU())


class GarmentNet(nn.Module):
    """[N, 3, 112, 112] in 0..1 -> 64 maps of 14x14 -> global average -> 10 logits."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            block(3, 12, pool=True), block(12, 32, pool=True),
            block(32, 48), block(48, 48, pool=True),
            block(48, 64), block(64, 64), block(64, 64))
        self.classifier = nn.Linear(64, CLASSES)

    def answer(self, maps):
        """The logits that follow from the feature maps."""
        return self.classifier(torch.flatten(nn.functional.adaptive_avg_pool2d(maps, 1), 1))

    def forward(self, image):
        """One logit for each class: is such a garment in the picture?"""
        return self.answer(self.features(image))


def grad_cam(net, images, classes):
    """Grad-CAM of classes[i] in images[i] at the last ReLU: (maps [n, 14, 14], logits)."""
    with torch.enable_grad():
        maps = net.features(images).detach().requires_grad_()
        logits = net.classifier(maps.mean((2, 3)))
        logits.gather(1, classes[:, None]).sum().backward()
    weights = maps.grad.mean((2, 3), keepdim=True)
    return torch.relu((weights * maps).sum(1)).detach(), logits.detach()


def extent(net, maps, hot):
    """Mean squared distance, in cells, of a class's evidence from its centre of gravity.

    Taken over the classes that are in the pictures; small where a map is compact.
    """
    scene, kind = torch.nonzero(hot, as_tuple=True)
    cam = torch.einsum("mk,mkhw->mhw", net.classifier.weight[kind], maps[scene])
    share = torch.relu(cam).flatten(1)
    share = share / (share.sum(1, keepdim=True) + 1e-6)
    y, x = torch.meshgrid(*(torch.arange(float(n)) for n in cam.shape[1:]), indexing="ij")
    place = torch.stack([x.flatten(), y.flatten()], 1)
    return (share @ (place ** 2).sum(1) - ((share @ place) ** 2).sum(1)).mean()


def peak(cam, size):
    """(x, y) of the largest value of each map after bilinear resizing to size x size."""
    big = nn.functional.interpolate(cam[:, None], size=(size, size), mode="bilinear",
                                    align_corners=False)
    flat = big.flatten(1).argmax(1)
    return flat % size, flat // size


def inside(boxes, x, y):
    """Whether the points lie in the boxes (x0, y0, x1, y1), half-open."""
    return ((boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3]))
