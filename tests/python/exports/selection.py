# SPDX-License-Identifier: MIT
"""What the default selection exports, and how; the others are long tests."""

QUICK = {
    "script17": "alexnet vgg13_bn resnet18 resnext50 densenet121 googlenet mobilenet_v2 mobilenet_v3_small "
                "efficientnet_b0 vit swin_t",
    "script20_open": "squeezenet1_1 shufflenet_v2 mnasnet0_5 inception_v3 regnet_y_400mf convnext_tiny vit",
    "dynamo18": "squeezenet1_1 mobilenet_v3_small",
    "dynamo18_open": "vgg13_bn resnet18 vit",
    "dynamo23": "alexnet",
}


def is_quick(name, exporter):
    return name in QUICK[exporter].split()
