"""ConvNeXt V2 (arXiv 2301.00808), as its authors and timm build it: ConvNeXt with global response
normalization in place of the layer scale."""

import dataclasses

import flax.linen as nn

from imgcls_jax.models import MODELS
from imgcls_jax.models._variants import takes
from imgcls_jax.models.convnext import TIMM, ConvNeXt, transformers
from imgcls_jax.registry import BelowOne

TRANSFORMERS = transformers("convnextv2")


def _facts(width: int, convolved: bool = False) -> dict:
    """width: of the first stage. convolved: timm has convolutions for a block's dense layers."""
    shapes = tuple(
        (rf"stages\.{i}\.blocks\.\d+\.mlp\.{name}\.weight", (-1, times * width * 2**i, 1, 1))
        for i in range(4) for name, times in (("fc1", 1), ("fc2", 4))) if convolved else ()
    return {"image_size": 224, "head": "head", "paper": "arXiv 2301.00808",
            "layouts": {"timm": dataclasses.replace(TIMM, shapes=shapes),
                        "transformers": TRANSFORMERS}}


def _build(num_classes, blocks, width, **options):
    widths = tuple(width * 2**i for i in range(4))
    return ConvNeXt(num_classes, blocks, widths, layer_scale=None, grn=True, **options)


def _options(num_classes: int, *, drop_path: BelowOne = 0.1, remat: bool = False,
             dtype: str = "float32") -> nn.Module:
    """The signature of every variant."""


@MODELS.register(params=3_708_400, **_facts(40, True))
@takes(_options)
def convnextv2_atto(num_classes, **options):
    return _build(num_classes, (2, 2, 6, 2), 40, **options)


@MODELS.register(params=5_233_240, **_facts(48, True))
@takes(_options)
def convnextv2_femto(num_classes, **options):
    return _build(num_classes, (2, 2, 6, 2), 48, **options)


@MODELS.register(params=9_066_280, **_facts(64, True))
@takes(_options)
def convnextv2_pico(num_classes, **options):
    return _build(num_classes, (2, 2, 6, 2), 64, **options)


@MODELS.register(params=15_623_800, **_facts(80, True))
@takes(_options)
def convnextv2_nano(num_classes, **options):
    return _build(num_classes, (2, 2, 8, 2), 80, **options)


@MODELS.register(params=28_635_496, **_facts(96))
@takes(_options, drop_path=0.2)
def convnextv2_tiny(num_classes, **options):
    return _build(num_classes, (3, 3, 9, 3), 96, **options)


@MODELS.register(params=88_717_800, **_facts(128))
@takes(_options)
def convnextv2_base(num_classes, **options):
    return _build(num_classes, (3, 3, 27, 3), 128, **options)


@MODELS.register(params=197_956_840, **_facts(192))
@takes(_options)
def convnextv2_large(num_classes, **options):
    return _build(num_classes, (3, 3, 27, 3), 192, **options)


@MODELS.register(params=660_289_640, **_facts(352))
@takes(_options)
def convnextv2_huge(num_classes, **options):
    return _build(num_classes, (3, 3, 27, 3), 352, **options)
