# SPDX-License-Identifier: MIT
"""torchvision: classification."""

import torchvision.models as models
from torch import nn

from .case import case

TINY, SMALL = (1, 3, 40, 40), (1, 3, 64, 64)
OTHER = ((2, 3, 33, 39),)
FULLY = {"free": (0, 2, 3), "other": OTHER}


def make(name, **options):
    return lambda: getattr(models, name)(num_classes=10, **options)


def alexnet():
    net = models.alexnet(num_classes=10)
    net.classifier[1], net.classifier[4], net.classifier[6] = nn.Linear(9216, 64), nn.Linear(64, 32), nn.Linear(32, 10)
    return net


def vgg():
    """Depth and head of VGG-13 with batch norm, a quarter of the width."""
    plan = [16, 16, "M", 32, 32, "M", 64, 64, "M", 128, 128, "M", 128, 128, "M"]
    net = models.VGG(models.vgg.make_layers(plan, batch_norm=True), num_classes=10)
    net.avgpool = nn.AdaptiveAvgPool2d(2)
    net.classifier[0], net.classifier[3], net.classifier[6] = nn.Linear(512, 32), nn.Linear(32, 32), nn.Linear(32, 10)
    return net


case("alexnet", alexnet, (1, 3, 224, 224), layer="features.12")
case("vgg13_bn", vgg, SMALL, layer="features.34")
case("resnet18", make("resnet18"), TINY, layer="layer4", **FULLY)
case("resnet50", make("resnet50"), TINY, layer="layer4.2", **FULLY)
case("resnext50", make("resnext50_32x4d"), TINY, layer="layer3", **FULLY)
case("wide_resnet50", make("wide_resnet50_2"), TINY, layer="layer4", **FULLY)
case("squeezenet1_1", make("squeezenet1_1"), TINY, layer="features.12", **FULLY)
case("densenet121", make("densenet121"), TINY, layer="features.denseblock3", **FULLY)
case("googlenet", make("googlenet", aux_logits=False, init_weights=False), TINY,
     layer="inception4e", **FULLY)
case("inception_v3", make("inception_v3", aux_logits=False, init_weights=False), (1, 3, 75, 75), layer="Mixed_6e",
     free=(0, 2, 3), other=((1, 3, 79, 76),))
case("shufflenet_v2", make("shufflenet_v2_x0_5"), TINY, layer="conv5", **FULLY)
case("mobilenet_v2", make("mobilenet_v2"), TINY, layer="features.18", **FULLY)
case("mobilenet_v3_small", make("mobilenet_v3_small"), TINY, layer="features.12",
     **FULLY)
case("mobilenet_v3_large", make("mobilenet_v3_large"), TINY, layer="features.16", **FULLY)
case("mnasnet0_5", make("mnasnet0_5"), TINY, layer="layers.16", **FULLY)
case("efficientnet_b0", make("efficientnet_b0"), TINY, layer="features.8", **FULLY)
case("efficientnet_v2_s", make("efficientnet_v2_s"), TINY, layer="features.7", **FULLY)
case("regnet_x_400mf", make("regnet_x_400mf"), TINY, layer="trunk_output", **FULLY)
case("regnet_y_400mf", make("regnet_y_400mf"), TINY, layer="trunk_output.block4", **FULLY)
case("convnext_tiny", make("convnext_tiny"), SMALL, layer="features.7", free=(0, 2, 3), other=((2, 3, 64, 98),))
case("swin_t", make("swin_t"), SMALL, layer="permute")
case("swin_v2_t", make("swin_v2_t"), SMALL, layer="permute")
case("maxvit_t", lambda: models.MaxVit((64, 64), 16, 2, [16, 32, 64, 128], [2, 2, 2, 2], 8, 0.0, num_classes=10), SMALL,
     layer="blocks.3")
case("vit", lambda: models.VisionTransformer(64, 16, 4, 4, 64, 128, num_classes=10), SMALL,
     layer="encoder.layers.encoder_layer_3.ln_1")
