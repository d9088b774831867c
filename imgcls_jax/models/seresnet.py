"""ResNet with squeeze and excitation (SE-ResNet, arXiv 1709.01507) and with the changes of arXiv
1812.01187 to the stem and the shortcuts (ResNet-D), as timm builds them."""

import functools

import flax.linen as nn

from imgcls_jax.models import MODELS
from imgcls_jax.models._variants import takes
from imgcls_jax.models.resnet import TORCH, ResNet
from imgcls_jax.registry import BelowOne, Count
from imgcls_jax.types import Layout

GATE = ((r"stage(\d)_block(\d+)/squeeze_excite/reduce", r"layer\1.\2.se.fc1"),
        (r"stage(\d)_block(\d+)/squeeze_excite/expand", r"layer\1.\2.se.fc2"))
DEEP = (*((f"stem_{kind}{i}", f"conv1.{place}") for i in (1, 2, 3)
          for kind, place in (("conv", 3 * i - 3), ("norm", 3 * i - 2))),
        (r"stage(\d)_block(\d+)/shortcut_conv", r"layer\1.\2.downsample.1"),
        (r"stage(\d)_block(\d+)/shortcut_norm", r"layer\1.\2.downsample.2"))
SE = {"image_size": 224, "head": "head", "paper": "arXiv 1709.01507",
      "layouts": {"timm": Layout("torch", (*GATE, *TORCH.renames))}}  # timm/models/resnet.py
D = {**SE, "paper": "arXiv 1812.01187",
     "layouts": {"timm": Layout("torch", (*GATE, *DEEP, *TORCH.renames))}}
LARGER = {**D, "image_size": 256}
SEResNet = functools.partial(ResNet, gated=True)
ResNetD = functools.partial(ResNet, stem="deep", shortcut="average")


def _options(num_classes: int, *, width: Count = 64, norm_group: Count | None = None,
             zero_init: bool = False, drop_path: BelowOne = 0.0, remat: bool = False,
             dtype: str = "float32") -> nn.Module:
    """The signature of every variant."""


@MODELS.register(params=11_708_744, **D)
@takes(_options)
def resnet18d(num_classes, **options):
    return ResNetD(num_classes, (2, 2, 2, 2), **options)


@MODELS.register(params=16_014_408, **D)
@takes(_options)
def resnet26d(num_classes, **options):
    return ResNetD(num_classes, (2, 2, 2, 2), bottleneck=True, **options)


@MODELS.register(params=21_816_904, **D)
@takes(_options)
def resnet34d(num_classes, **options):
    return ResNetD(num_classes, (3, 4, 6, 3), **options)


@MODELS.register(params=25_576_264, **D)
@takes(_options)
def resnet50d(num_classes, **options):
    return ResNetD(num_classes, (3, 4, 6, 3), bottleneck=True, **options)


@MODELS.register(params=44_568_392, **LARGER)
@takes(_options)
def resnet101d(num_classes, **options):
    return ResNetD(num_classes, (3, 4, 23, 3), bottleneck=True, **options)


@MODELS.register(params=60_212_040, **LARGER)
@takes(_options)
def resnet152d(num_classes, **options):
    return ResNetD(num_classes, (3, 8, 36, 3), bottleneck=True, **options)


@MODELS.register(params=64_693_064, **LARGER)
@takes(_options)
def resnet200d(num_classes, **options):
    return ResNetD(num_classes, (3, 24, 36, 3), bottleneck=True, **options)


@MODELS.register(params=11_779_624, **SE)
@takes(_options)
def seresnet18(num_classes, **options):
    return SEResNet(num_classes, (2, 2, 2, 2), **options)


@MODELS.register(params=21_960_416, **SE)
@takes(_options)
def seresnet34(num_classes, **options):
    return SEResNet(num_classes, (3, 4, 6, 3), **options)


@MODELS.register(params=28_088_024, **SE)
@takes(_options)
def seresnet50(num_classes, **options):
    return SEResNet(num_classes, (3, 4, 6, 3), bottleneck=True, **options)


@MODELS.register(params=49_326_872, **SE)
@takes(_options)
def seresnet101(num_classes, **options):
    return SEResNet(num_classes, (3, 4, 23, 3), bottleneck=True, **options)


@MODELS.register(params=66_821_848, **SE)
@takes(_options)
def seresnet152(num_classes, **options):
    return SEResNet(num_classes, (3, 8, 36, 3), bottleneck=True, **options)


@MODELS.register(params=66_841_080, **LARGER)
@takes(_options)
def seresnet152d(num_classes, **options):
    return ResNetD(num_classes, (3, 8, 36, 3), bottleneck=True, gated=True, **options)


@MODELS.register(params=27_559_896, **SE)
@takes(_options)
def seresnext50_32x4d(num_classes, **options):
    return SEResNet(num_classes, (3, 4, 6, 3), bottleneck=True, inner=2, groups=32, **options)


@MODELS.register(params=93_569_048, **SE)
@takes(_options)
def seresnext101_32x8d(num_classes, **options):
    return SEResNet(num_classes, (3, 4, 23, 3), bottleneck=True, inner=4, groups=32, **options)
