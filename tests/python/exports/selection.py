# SPDX-License-Identifier: MIT
"""What the default selection exports, and how; the others are long tests."""

QUICK = {
    "script17": "alexnet vgg13_bn resnet18 densenet121 mobilenet_v3_small efficientnet_b0 vit swin_t bert unet "
                "yolo_anchors",
    "script20_open": "squeezenet1_1 shufflenet_v2 mnasnet0_5 regnet_y_400mf vqa_lstm wave",
    "dynamo18": "squeezenet1_1 mobilenet_v3_small convnextv2_atto repvit_m0_9",
    "dynamo18_open": "resnet18 vit clip_text caption_gru",
    "dynamo23": "alexnet",
}


def is_quick(name, exporter):
    return name in QUICK[exporter].split()
