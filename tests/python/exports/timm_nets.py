# SPDX-License-Identifier: MIT
"""timm: convolutional networks old and new, transformers of all kinds, MLPs; most of them narrower and shallower."""

import timm
from timm.layers import GatedMlp
from timm.models.metaformer import Attention, LayerNorm2dNoBias, LayerNormNoBias, MetaFormer, Pooling, SepConv
from timm.models.mlp_mixer import Affine, MlpMixer, ResBlock, SpatialGatingBlock
from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg

from .case import case

TINY, SMALL = (1, 3, 40, 40), (1, 3, 64, 64)
FULLY = {"free": (0, 2, 3), "other": ((2, 3, 33, 39),)}
BATCH = {"free": (0,)}
NARROW = {"layers": (1, 1, 1, 1), "channels": (16, 32, 48, 64)}
PATCHES = {"img_size": 64, "embed_dim": 48, "num_heads": 3, "depth": 3}


def metaformer(*mixers):
    norms = [LayerNormNoBias if m is Attention else LayerNorm2dNoBias for m in mixers]
    return lambda: MetaFormer(depths=(1, 1, 2, 1), dims=(32, 48, 64, 96), token_mixers=mixers, norm_layers=norms,
                              num_classes=10)


def mixer(**options):
    return lambda: MlpMixer(num_classes=10, img_size=64, embed_dim=48, num_blocks=3, **options)


def timm_case(name, layer, shape=SMALL, free=BATCH, **options):
    case(name, lambda: timm.create_model(name, num_classes=10, **options), shape, layer=layer, **free)


# Residual networks and their gates: deep stems, split attention, selective kernels, hierarchies of scales.
timm_case("resnet18d", "layer4", TINY, FULLY, **NARROW)
timm_case("resnest14d", "layer4", TINY, FULLY, **NARROW)
timm_case("skresnet18", "layer4", TINY, FULLY, **NARROW)
timm_case("res2next50", "layer3", TINY, FULLY, **NARROW)
timm_case("seresnext26d_32x4d", "layer4", TINY, FULLY, **NARROW)
timm_case("ecaresnet26t", "layer4", TINY, FULLY, **NARROW)
timm_case("ese_vovnet19b_dw", "stages.3", TINY, FULLY)
timm_case("dpn48b", "features.conv5_3", TINY, FULLY)
timm_case("hrnet_w18_small", "stage4")

# Small ones for phones.
timm_case("ghostnet_100", "blocks.7", TINY, FULLY)
timm_case("ghostnetv2_100", "blocks.7")
timm_case("mixnet_s", "blocks.5", TINY, FULLY)
timm_case("tf_efficientnet_b0", "blocks.6")
timm_case("lcnet_050", "blocks.5", TINY, FULLY)
timm_case("mobilenetv4_conv_small_050", "blocks.4", TINY, FULLY)
timm_case("mobileone_s0", "final_conv", TINY, FULLY)
timm_case("rexnet_100", "features.15", TINY, FULLY)
timm_case("hgnetv2_b0", "stages.3", TINY, FULLY)

# Convolutional networks of the twenties, and mixtures.
timm_case("convnextv2_atto", "stages.3", SMALL, {"free": (0, 2, 3), "other": ((2, 3, 64, 96),)}, depths=(1, 1, 2, 1))
timm_case("fastvit_t8", "stages.3", layers=(1, 1, 1, 1))
timm_case("repvit_m0_9", "stages.3")
timm_case("starnet_s1", "stages.3")
timm_case("mambaout_femto", "stages.3", depths=(1, 1, 2, 1), dims=(24, 48, 96, 144))
case("poolformer", metaformer(*4 * [Pooling]), SMALL, layer="stages.3")
case("caformer", metaformer(SepConv, SepConv, Attention, Attention), SMALL, layer="stages.3")
timm_case("inception_next_atto", "stages.3", depths=(1, 1, 2, 1))
case("focalnet", lambda: timm.models.FocalNet(num_classes=10, embed_dim=24, depths=(1, 1, 2, 1)), SMALL, layer="layers.3")
timm_case("mobilevit_xxs", "final_conv")
timm_case("mobilevitv2_050", "final_conv")
timm_case("edgenext_xx_small", "stages.3")
timm_case("efficientvit_b0", "stages.3")
timm_case("efficientvit_m0", "stages.2", img_size=64)
timm_case("swiftformer_xs", "stages.3")

# Transformers: plain ones, with relative positions, with windows, with pyramids.
timm_case("deit3_small_patch16_224", "blocks.2", **PATCHES)
timm_case("cait_xxs24_224", "blocks.2", **PATCHES)
timm_case("beit_base_patch16_224", "blocks.2", **PATCHES)
timm_case("eva02_tiny_patch14_224", "blocks.2", (1, 3, 56, 56), **{**PATCHES, "img_size": 56})
timm_case("vit_relpos_small_patch16_224", "blocks.2", **PATCHES)
timm_case("xcit_nano_12_p16_224", "blocks.2", **PATCHES)
timm_case("coat_lite_tiny", "serial_blocks4.1", img_size=64)
timm_case("coatnet_pico_rw_224", "stages.3", img_size=64)
timm_case("crossvit_tiny_240", "blocks.2", (1, 3, 48, 48), img_size=48, img_scale=(1.0, 32 / 48))
timm_case("pit_ti_224", "transformers.1", img_size=64)
timm_case("pvt_v2_b0", "stages.3", depths=(1, 1, 1, 1))
case("twins_svt", lambda: timm.models.Twins(
    img_size=64, num_classes=10, embed_dims=(16, 32, 64, 96), num_heads=(1, 2, 4, 4), depths=(2, 2, 2, 2),
    wss=(4, 4, 4, 4), sr_ratios=(8, 4, 2, 1)), SMALL, layer="blocks.3.1")
timm_case("visformer_tiny", "stage3", img_size=64, depth=(1, 1, 1), embed_dim=96)
case("mvitv2", lambda: MultiScaleVit(MultiScaleVitCfg(depths=(1, 1, 2, 1), embed_dim=24), img_size=64, num_classes=10), SMALL,
     layer="stages.3")
timm_case("davit_tiny", "stages.3", depths=(1, 1, 1, 1), embed_dims=(24, 48, 96, 96), num_heads=(1, 2, 4, 4))
timm_case("hiera_tiny_224", "blocks.3", img_size=(64, 64), stages=(1, 1, 1, 1), embed_dim=24)
timm_case("tiny_vit_5m_224", "stages.3", depths=(1, 1, 1, 1), window_sizes=(4, 4, 4, 2))
timm_case("sequencer2d_s", "stages.3", img_size=64, layers=(1, 1, 1, 1), embed_dims=(48, 64, 64, 64))

# MLPs.
case("mixer", mixer(), SMALL, layer="blocks.2")
case("resmlp", mixer(mlp_ratio=4, block_layer=ResBlock, norm_layer=Affine), SMALL, layer="blocks.2")
case("gmlp", mixer(mlp_ratio=6, block_layer=SpatialGatingBlock, mlp_layer=GatedMlp), SMALL, layer="blocks.2")
case("convmixer", lambda: timm.models.ConvMixer(64, 4, num_classes=10), TINY, layer="blocks.3", **FULLY)
