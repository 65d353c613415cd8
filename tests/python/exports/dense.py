# SPDX-License-Identifier: MIT
"""torchvision: segmentation and video; own: U-Net, signals of one dimension, heads of detectors."""

import torch
import torchvision.models as models
from torch import nn
from torch.nn import functional
from torchvision.models import segmentation
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.video import resnet as resnet3d

from .case import case

SMALL = (1, 3, 64, 64)
FULLY = {"free": (0, 2, 3), "other": ((2, 3, 72, 56),)}
CLIP = (1, 3, 8, 32, 32)  # of pictures


def conv(cin, cout, k=3, stride=1, act=nn.ReLU):
    return nn.Sequential(nn.Conv2d(cin, cout, k, stride, k // 2, bias=False), nn.BatchNorm2d(cout), act())


# ---- segmentation ----

def fcn():
    backbone = IntermediateLayerGetter(models.resnet18(), {"layer3": "out"})
    return segmentation.FCN(backbone, segmentation.fcn.FCNHead(256, 4))


def deeplab():
    backbone = IntermediateLayerGetter(models.resnet18(), {"layer2": "out"})
    return segmentation.DeepLabV3(backbone, segmentation.deeplabv3.DeepLabHead(128, 4, (2, 4, 6)))


def lraspp():
    backbone = IntermediateLayerGetter(models.mobilenet_v3_small().features, {"3": "low", "12": "high"})
    return segmentation.LRASPP(backbone, 24, 576, 4, 32)


case("fcn_resnet18", fcn, SMALL, layer="backbone.layer3", **FULLY)
case("deeplabv3_resnet18", deeplab, SMALL, layer="classifier.0", **FULLY)
case("lraspp_mobilenet", lraspp, SMALL, layer="backbone.12", **FULLY)


class UNet(nn.Module):
    """Two steps down and up; up by transposed convolution or by interpolation; group norm below."""

    def __init__(self, interpolate):
        super().__init__()
        self.interpolate = interpolate
        self.left, self.middle = conv(3, 8), conv(8, 16)
        self.bottom = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.SiLU())
        self.up1, self.up2 = nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)
        self.thin1, self.thin2 = nn.Conv2d(32, 16, 1), nn.Conv2d(16, 8, 1)
        self.right1 = conv(32, 16, act=nn.ELU)
        self.right2 = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1, padding_mode="reflect"), nn.LeakyReLU(0.1))
        self.head = nn.Conv2d(8, 4, 1)

    def up(self, x, transposed, thin):
        if not self.interpolate:
            return transposed(x)
        return functional.interpolate(thin(x), scale_factor=2, mode="bilinear", align_corners=False)

    def forward(self, x):
        a = self.left(x)
        b = self.middle(functional.max_pool2d(a, 2))
        c = self.bottom(functional.avg_pool2d(b, 2))
        d = self.right1(torch.cat([b, self.up(c, self.up1, self.thin1)], 1))
        return self.head(self.right2(torch.cat([a, self.up(d, self.up2, self.thin2)], 1)))


case("unet", lambda: UNet(False), (1, 3, 32, 32), layer="bottom", free=(0, 2, 3), other=((2, 3, 40, 24),))
case("unet_bilinear", lambda: UNet(True), (1, 3, 32, 32), layer="bottom", free=(0, 2, 3), other=((2, 3, 40, 24),))


# ---- video ----

def video(stem, *convolutions):
    """A residual network over pictures and time, one block at each resolution."""
    return lambda: resnet3d.VideoResNet(resnet3d.BasicBlock, convolutions, [1, 1, 1, 1], stem, num_classes=10)


case("r3d", video(resnet3d.BasicStem, *4 * [resnet3d.Conv3DSimple]), CLIP, layer="layer3", free=(0, 2, 3, 4),
     other=((2, 3, 6, 40, 28),))
case("mc3", video(resnet3d.BasicStem, resnet3d.Conv3DSimple, *3 * [resnet3d.Conv3DNoTemporal]), CLIP, layer="layer3")
case("r2plus1d", video(resnet3d.R2Plus1dStem, *4 * [resnet3d.Conv2Plus1D]), (1, 3, 4, 16, 16), layer="layer3")
case("mvit", lambda: models.video.MViT((32, 32), 4, [
    models.video.mvit.MSBlockConfig(1, 16, 32, [3, 3, 3], [1, 2, 2], [1, 2, 2], [1, 1, 1]),
    models.video.mvit.MSBlockConfig(2, 32, 32, [3, 3, 3], [1, 1, 1], [1, 2, 2], [1, 1, 1])],
    residual_pool=True, residual_with_cls_embed=False, rel_pos_embed=True, proj_after_attn=True, num_classes=10),
    (1, 3, 4, 32, 32), layer="blocks.1")
case("swin3d", lambda: models.video.SwinTransformer3d([2, 4, 4], 16, [1, 2], [2, 4], [4, 4, 4], num_classes=10),
     (1, 3, 8, 32, 32), layer="norm")


# ---- signals ----

class Wave(nn.Module):
    """Dilated residual convolutions over a signal with gates, as in WaveNet."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(2, 16, 9, 2, 4), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2))
        self.gates = nn.ModuleList(nn.Conv1d(16, 32, 3, dilation=d, padding=d) for d in (1, 2, 4))
        self.norm, self.head = nn.InstanceNorm1d(16, affine=True), nn.Linear(32, 5)

    def forward(self, x):
        x = self.stem(x)
        for gate in self.gates:
            a, b = gate(x).chunk(2, 1)
            x = x + torch.tanh(a) * torch.sigmoid(b)
        x = self.norm(x)
        return self.head(torch.cat([x.mean(2), x.amax(2)], 1))


class Spoken(nn.Module):
    """Keywords from a signal: convolutions, then an LSTM in both directions."""

    def __init__(self):
        super().__init__()
        self.front = nn.Sequential(nn.Conv1d(1, 16, 16, 8), nn.GELU(), nn.Conv1d(16, 24, 5, 2, groups=4), nn.GELU())
        self.lstm, self.head = nn.LSTM(24, 12, 2, batch_first=True, bidirectional=True), nn.Linear(24, 6)

    def forward(self, x):
        return self.head(self.lstm(self.front(x).transpose(1, 2))[0].mean(1))


case("wave", Wave, (1, 2, 128), layer="stem", free=(0, 2), other=((3, 2, 100),))
case("spoken", Spoken, (1, 1, 400), layer="front")


# ---- detectors up to their raw heads ----

class Stages(nn.Module):
    """A small backbone with three resolutions."""

    def __init__(self):
        super().__init__()
        self.stem, self.c3 = conv(3, 8, stride=2, act=nn.SiLU), conv(8, 16, stride=2, act=nn.SiLU)
        self.c4, self.c5 = conv(16, 24, stride=2, act=nn.SiLU), conv(24, 32, stride=2, act=nn.SiLU)

    def forward(self, x):
        c3 = self.c3(self.stem(x))
        c4 = self.c4(c3)
        return c3, c4, self.c5(c4)


class Yolo(nn.Module):
    """Anchors, as in version 5: pooling pyramid, upsampled neck, boxes from squared sigmoids."""

    def __init__(self, classes=3):
        super().__init__()
        self.outputs = 5 + classes
        self.stages, self.pool, self.mix = Stages(), nn.MaxPool2d(5, 1, 2), conv(128, 32, 1, act=nn.SiLU)
        self.neck = conv(56, 24, act=nn.SiLU)
        self.heads = nn.ModuleList([nn.Conv2d(24, 2 * self.outputs, 1), nn.Conv2d(32, 2 * self.outputs, 1)])
        self.register_buffer("anchors", torch.tensor([[[10., 13], [16, 30]], [[30, 61], [62, 45]]]))

    def boxes(self, x, level):
        n, _, h, w = x.shape
        x = x.view(n, 2, self.outputs, h, w).permute(0, 1, 3, 4, 2).sigmoid()
        ys, xs = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        grid = torch.stack([xs, ys], -1).to(x.dtype)
        xy = (x[..., :2] * 2 - 0.5 + grid) * (8 << level)
        wh = (x[..., 2:4] * 2) ** 2 * self.anchors[level].to(x.dtype).view(1, 2, 1, 1, 2)
        return torch.cat([xy, wh, x[..., 4:]], -1).view(n, -1, self.outputs)

    def forward(self, x):
        _, c4, c5 = self.stages(x)
        pooled = [c5]
        for _ in range(3):
            pooled.append(self.pool(pooled[-1]))
        c5 = self.mix(torch.cat(pooled, 1))
        c4 = self.neck(torch.cat([functional.interpolate(c5, scale_factor=2), c4], 1))
        return torch.cat([self.boxes(head(c), k) for k, (head, c) in enumerate(zip(self.heads, (c4, c5)))], 1)


class YoloFree(nn.Module):
    """Without anchors, as in version 8: a distribution over each distance, decoded by its mean; all levels at once."""

    BINS = 8

    def __init__(self, classes=3):
        super().__init__()
        self.stages, widths = Stages(), (16, 24, 32)
        self.split = nn.Conv2d(32, 32, 1)
        self.boxes = nn.ModuleList(nn.Conv2d(c, 4 * self.BINS, 3, padding=1) for c in widths)
        self.classes = nn.ModuleList(nn.Conv2d(c, classes, 3, padding=1) for c in widths)
        self.mean = nn.Conv2d(self.BINS, 1, 1, bias=False)

    def forward(self, x):
        levels = list(self.stages(x))
        a, b = self.split(levels[2]).chunk(2, 1)
        levels[2] = levels[2] + torch.cat([functional.silu(a), b], 1)
        raw = [torch.cat([box(c), cls(c)], 1).flatten(2) for box, cls, c in zip(self.boxes, self.classes, levels)]
        box, cls = torch.cat(raw, 2).split([4 * self.BINS, raw[0].shape[1] - 4 * self.BINS], 1)
        n, _, places = box.shape
        sides = self.mean(box.view(n, 4, self.BINS, places).transpose(1, 2).softmax(1)).view(n, 4, places)
        near, far = sides.chunk(2, 1)
        return torch.cat([(far - near) / 2, far + near, cls.sigmoid()], 1)


case("yolo_anchors", Yolo, SMALL, layer="neck", **{**FULLY, "other": ((2, 3, 96, 64),)})
case("yolo_free", YoloFree, SMALL, layer="stages.c5", **{**FULLY, "other": ((2, 3, 96, 64),)})
