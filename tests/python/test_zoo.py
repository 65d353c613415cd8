# SPDX-License-Identifier: MIT
"""Whole networks against golden outputs, gradients and maps (the zoo)."""

import tarfile

import pytest

from goldens import ROOT, ZOO, check_export, close, read  # noqa: F401  (others take them from here)

FAMILIES = ("alexnet vgg vgg_bn resnet_basic resnet_bottleneck cam_gap mobilenet_v2 mnasnet shufflenet_v2 "
            "efficientnet unet_ac unet_ct convnext bertlike textenc caption_cell caption_packed vqa_lstm odd_shapes vit yolo8head maxvit").split()


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    if not ZOO.exists():
        pytest.skip("the zoo is not beside the project")
    folder = tmp_path_factory.mktemp("zoo")
    with tarfile.open(ZOO) as archive:
        archive.extractall(folder, filter="data")
    return folder / "zoo"


@pytest.mark.parametrize("family", FAMILIES)
def test_family(zoo, family):
    exports = sorted(p for p in zoo.iterdir() if p.name.split(".")[0] == family)
    assert exports
    for folder in exports:
        check_export(folder)
