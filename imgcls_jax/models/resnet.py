"""ResNet v1.5 for ImageNet, as torchvision builds it, wide ResNet (arXiv 1605.07146) and ResNeXt
(arXiv 1611.05431) of the same blocks, and the paper's variants for CIFAR."""

import functools
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from imgcls_jax.errors import ConfigError
from imgcls_jax.layers.conv import Conv
from imgcls_jax.layers.drop import DropPath
from imgcls_jax.layers.inverted_residual import round_channels
from imgcls_jax.layers.norm import BatchNorm
from imgcls_jax.layers.pool import avg_pool, max_pool
from imgcls_jax.layers.relu import relu
from imgcls_jax.layers.squeeze_excite import SqueezeExcite
from imgcls_jax.models import MODELS
from imgcls_jax.models._variants import takes
from imgcls_jax.registry import BelowOne, Count
from imgcls_jax.types import Layout

PAPER = "arXiv 1512.03385"
TORCH = Layout("torch", (  # torchvision/models/resnet.py; timm's resnet.py has the same names
    (r"stem_conv", r"conv1"),
    (r"stem_norm", r"bn1"),
    (r"stage(\d)_block(\d+)/conv(\d)", r"layer\1.\2.conv\3"),
    (r"stage(\d)_block(\d+)/norm(\d)", r"layer\1.\2.bn\3"),
    (r"stage(\d)_block(\d+)/shortcut_conv", r"layer\1.\2.downsample.0"),
    (r"stage(\d)_block(\d+)/shortcut_norm", r"layer\1.\2.downsample.1"),
    (r"head", r"fc")))


def _part(match) -> str:
    """The name of a part of a block in transformers."""
    stage, block, shortcut, kind, number = match.groups()
    place = "shortcut" if shortcut else f"layer.{int(number) - 1}"
    return f"resnet.encoder.stages.{int(stage) - 1}.layers.{block}.{place}.{NAMES[kind]}"


NAMES = {"conv": "convolution", "norm": "normalization"}
TRANSFORMERS = Layout("torch", (  # transformers/models/resnet: the plain ones alone
    (r"stem_conv", r"resnet.embedder.embedder.convolution"),
    (r"stem_norm", r"resnet.embedder.embedder.normalization"),
    (r"stage(\d)_block(\d+)/(shortcut_)?(conv|norm)(\d?)", _part),
    (r"head", r"classifier.1")), older=((r"(?:embedder|encoder)\..*", r"resnet.\g<0>"),))
WIDE = {"image_size": 224, "head": "head", "paper": "arXiv 1605.07146",
        "layouts": {"torchvision": TORCH, "timm": TORCH}}
NEXT = {**WIDE, "paper": "arXiv 1611.05431"}
IMAGENET = {**WIDE, "paper": PAPER,
            "layouts": {**WIDE["layouts"], "transformers": TRANSFORMERS}}
CIFAR = {"image_size": 32, "classes": 10, "mean": (0.4914, 0.4822, 0.4465),
         "std": (0.2470, 0.2435, 0.2616), "head": "head", "paper": PAPER}


STEM_POOL = functools.partial(max_pool, size=3, stride=2, padding=1)


class Block(nn.Module):
    """Residual block, f[B,H,W,C] -> f[B,H/stride,W/stride,D].

    bottleneck: 1x1, 3x3, 1x1 with D = 4 * features and the stride in the 3x3 (v1.5), the first two
      `inner` times as wide as features and the 3x3 in `groups`; otherwise 3x3, 3x3 with D =
      features.
    shortcut: where shapes differ, a 1x1 convolution ("projection", the paper's option B), the same
      after the mean of each 2x2 pixels in place of its stride ("average", arXiv 1812.01187, section
      4.2), or every stride-th pixel and zeros for the new channels ("pad", option A).
    drop_path: rate at which the block of an example is skipped in training.
    gated: squeeze and excitation at the end of the branch, with a sixteenth of its channels, to the
      nearest multiple of 8, in between.
    """

    features: int
    stride: int
    bottleneck: bool
    inner: int
    groups: int
    shortcut: Literal["projection", "average", "pad"]
    drop_path: float
    norm_group: int | None
    zero_init: bool
    dtype: Any
    gated: bool = False

    @nn.compact
    def __call__(self, x, train: bool):
        if self.bottleneck:
            inner = self.inner * self.features
            plan = ((inner, (1, 1), 1, 1), (inner, (3, 3), self.stride, self.groups),
                    (4 * self.features, (1, 1), 1, 1))
        else:
            plan = ((self.features, (3, 3), self.stride, 1), (self.features, (3, 3), 1, 1))
        y = x
        for i, (features, kernel_size, stride, groups) in enumerate(plan, 1):
            last = i == len(plan)
            y = _conv(self, features, kernel_size, stride, groups=groups, name=f"conv{i}")(y)
            y = _norm(self, zero=last and self.zero_init, name=f"norm{i}")(y, train)
            y = y if last else nn.relu(y)
        if self.gated:
            y = SqueezeExcite(round_channels(y.shape[-1] / 16), dtype=self.dtype,
                              name="squeeze_excite")(y)
        y = DropPath(self.drop_path, name="drop_path")(y, train)
        if x.shape != y.shape and self.shortcut != "pad":
            stride = self.stride
            if self.shortcut == "average" and stride > 1:
                x, stride = avg_pool(x, stride, stride, ceil=True), 1
            x = _conv(self, y.shape[-1], (1, 1), stride, name="shortcut_conv")(x)
            x = _norm(self, name="shortcut_norm")(x, train)
        elif x.shape != y.shape:
            x = x[:, ::self.stride, ::self.stride]
            new = y.shape[-1] - x.shape[-1]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))
        return relu(x + y)


class ResNet(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or pooled features where num_classes is 0.

    blocks: per stage; each stage after the first halves the size and doubles the width.
    inner, groups: of a bottleneck, how many times as wide as its stage and in how many groups the
      3x3 convolution is: (2, 1) in a wide ResNet, (2, 32) in ResNeXt 32x4d.
    stem: 7x7 stride 2 and max pooling ("imagenet"), three of 3x3 in place of the 7x7 ("deep", arXiv
      1812.01187, section 4.2), or one 3x3 at full size ("cifar").
    gated, shortcut: see Block.
    norm_group: examples per BatchNorm statistic, None for the whole batch.
    zero_init: start each block as the identity (arXiv 1706.02677, section 5.1).
    drop_path: stochastic depth of the last block (arXiv 1603.09382); the rate grows linearly from
      0 at the first.
    remat: compute the inside of a block again in the backward pass instead of keeping it.

    ConfigError if the groups do not divide the width.
    """

    num_classes: int
    blocks: tuple[int, ...]
    bottleneck: bool = False
    width: int = 64
    stem: Literal["imagenet", "deep", "cifar"] = "imagenet"
    shortcut: Literal["projection", "average", "pad"] = "projection"
    norm_group: int | None = None
    zero_init: bool = False
    dtype: Any = jnp.float32
    inner: int = 1
    groups: int = 1
    drop_path: float = 0.0
    remat: bool = False
    gated: bool = False

    @nn.compact
    def __call__(self, x, train: bool = False):
        if self.inner * self.width % self.groups:
            raise ConfigError(f"{self.inner * self.width} channels do not divide into "
                              f"{self.groups} groups", where="config.model.width",
                              fix=f"use a multiple of {self.groups // self.inner or 1}")
        if self.stem == "deep":
            for i, stride in ((1, 2), (2, 1)):
                x = _conv(self, self.width // 2, (3, 3), stride, name=f"stem_conv{i}")(x)
                x = nn.relu(_norm(self, name=f"stem_norm{i}")(x, train))
            x = _conv(self, self.width, (3, 3), 1, name="stem_conv3")(x)
        else:
            kernel_size, stride = ((7, 7), 2) if self.stem == "imagenet" else ((3, 3), 1)
            x = _conv(self, self.width, kernel_size, stride, name="stem_conv")(x)
        norm = _norm(self, name="stem_norm")
        x = nn.relu(norm(x, train)) if self.stem == "cifar" else norm(x, train, STEM_POOL)
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        places = [(i, j) for i, count in enumerate(self.blocks) for j in range(count)]
        for index, (i, j) in enumerate(places):
            rate = self.drop_path * index / max(len(places) - 1, 1)
            x = block(self.width * 2**i, 2 if i and not j else 1, self.bottleneck, self.inner,
                      self.groups, self.shortcut, rate, self.norm_group, self.zero_init, self.dtype,
                      self.gated, name=f"stage{i + 1}_block{j}")(x, train)
        wide = jnp.promote_types(self.dtype, jnp.float32)
        x = x.mean((1, 2), dtype=wide)
        if not self.num_classes:
            return x
        # torch's initial range of a dense layer: +-1/sqrt(inputs).
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        return nn.Dense(self.num_classes, kernel_init=init, dtype=wide, param_dtype=wide,
                        name="head")(x)


def _conv(module, features, kernel_size, stride, name, groups=1):
    init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    return Conv(features, kernel_size, stride, groups=groups, kernel_init=init, dtype=module.dtype,
                factored=True, name=name)


def _norm(module, name, zero=False):
    init = nn.initializers.zeros if zero else nn.initializers.ones
    return BatchNorm(module.norm_group, scale_init=init, dtype=module.dtype, name=name)


def _options(num_classes: int, *, width: Count = 64, norm_group: Count | None = None,
             zero_init: bool = False, drop_path: BelowOne = 0.0, remat: bool = False,
             dtype: str = "float32") -> nn.Module:
    """The signature of every variant."""


@MODELS.register(params=11_689_512, **IMAGENET)
@takes(_options)
def resnet18(num_classes, **options):
    return ResNet(num_classes, (2, 2, 2, 2), **options)


@MODELS.register(params=21_797_672, **IMAGENET)
@takes(_options)
def resnet34(num_classes, **options):
    return ResNet(num_classes, (3, 4, 6, 3), **options)


@MODELS.register(params=25_557_032, **IMAGENET)
@takes(_options)
def resnet50(num_classes, **options):
    return ResNet(num_classes, (3, 4, 6, 3), bottleneck=True, **options)


@MODELS.register(params=44_549_160, **IMAGENET)
@takes(_options)
def resnet101(num_classes, **options):
    return ResNet(num_classes, (3, 4, 23, 3), bottleneck=True, **options)


@MODELS.register(params=60_192_808, **IMAGENET)
@takes(_options)
def resnet152(num_classes, **options):
    return ResNet(num_classes, (3, 8, 36, 3), bottleneck=True, **options)


@MODELS.register(params=68_883_240, **WIDE)
@takes(_options)
def wide_resnet50_2(num_classes, **options):
    """Bottlenecks twice as wide inside, as torchvision names it."""
    return ResNet(num_classes, (3, 4, 6, 3), bottleneck=True, inner=2, **options)


@MODELS.register(params=126_886_696, **WIDE)
@takes(_options)
def wide_resnet101_2(num_classes, **options):
    """Bottlenecks twice as wide inside, as torchvision names it."""
    return ResNet(num_classes, (3, 4, 23, 3), bottleneck=True, inner=2, **options)


@MODELS.register(params=25_028_904, **NEXT)
@takes(_options)
def resnext50_32x4d(num_classes, **options):
    return ResNet(num_classes, (3, 4, 6, 3), bottleneck=True, inner=2, groups=32, **options)


@MODELS.register(params=88_791_336, **NEXT)
@takes(_options)
def resnext101_32x8d(num_classes, **options):
    return ResNet(num_classes, (3, 4, 23, 3), bottleneck=True, inner=4, groups=32, **options)


@MODELS.register(params=83_455_272, **NEXT)
@takes(_options)
def resnext101_64x4d(num_classes, **options):
    return ResNet(num_classes, (3, 4, 23, 3), bottleneck=True, inner=4, groups=64, **options)


@MODELS.register(params=269_722, **CIFAR)
@takes(_options, width=16)
def resnet20(num_classes, **options):
    """For images of 8 to 32 pixels (section 4.2 of the paper)."""
    return ResNet(num_classes, (3, 3, 3), stem="cifar", shortcut="pad", **options)


@MODELS.register(params=464_154, **CIFAR)
@takes(_options, width=16)
def resnet32(num_classes, **options):
    """For images of 8 to 32 pixels (section 4.2 of the paper)."""
    return ResNet(num_classes, (5, 5, 5), stem="cifar", shortcut="pad", **options)


@MODELS.register(params=658_586, **CIFAR)
@takes(_options, width=16)
def resnet44(num_classes, **options):
    """For images of 8 to 32 pixels (section 4.2 of the paper)."""
    return ResNet(num_classes, (7, 7, 7), stem="cifar", shortcut="pad", **options)


@MODELS.register(params=853_018, **CIFAR)
@takes(_options, width=16)
def resnet56(num_classes, **options):
    """For images of 8 to 32 pixels (section 4.2 of the paper)."""
    return ResNet(num_classes, (9, 9, 9), stem="cifar", shortcut="pad", **options)


@MODELS.register(params=1_727_962, **CIFAR)
@takes(_options, width=16)
def resnet110(num_classes, **options):
    """For images of 8 to 32 pixels (section 4.2 of the paper)."""
    return ResNet(num_classes, (18, 18, 18), stem="cifar", shortcut="pad", **options)
