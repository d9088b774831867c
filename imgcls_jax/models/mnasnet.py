"""MNASNet-B1 (arXiv 1807.11626), as torchvision builds it; timm's is the same network
with another momentum of BatchNorm."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from imgcls_jax.layers.conv import Conv
from imgcls_jax.layers.inverted_residual import InvertedResidual, round_channels
from imgcls_jax.layers.norm import BatchNorm
from imgcls_jax.models import MODELS, _mobile_names
from imgcls_jax.models._variants import takes
from imgcls_jax.registry import BelowOne, Count
from imgcls_jax.types import Layout

# Expansion, channels, kernel, blocks, first stride: figure 7 without squeeze and excitation.
STAGES = ((1, 16, 3, 1, 1), (3, 24, 3, 3, 2), (3, 40, 5, 3, 2), (6, 80, 5, 3, 2), (6, 96, 3, 2, 1),
          (6, 192, 5, 4, 2), (6, 320, 3, 1, 1))


def _parts(stage, block):
    return ("depthwise", "project") if stage == 1 else ("expand", "depthwise", "project")


def _torchvision(stage, block, part, leaf):
    """The first block's layers follow those of the stem, three for a convolution each."""
    number = 3 * _parts(stage, block).index(part) + int(leaf == "norm")
    return f"layers.{3 + number}" if stage == 1 else f"layers.{6 + stage}.{block}.layers.{number}"


IMAGENET = {"image_size": 224, "head": "head", "paper": "arXiv 1807.11626", "layouts": {
    "torchvision": Layout("torch", (  # torchvision/models/mnasnet.py
        *_mobile_names.renames(_torchvision),
        (r"stem_conv", r"layers.0"), (r"stem_norm", r"layers.1"),
        (r"last_conv", r"layers.14"), (r"last_norm", r"layers.15"),
        (r"head", r"classifier.1"))),
    "timm": Layout("torch", (  # timm/models/efficientnet.py
        *_mobile_names.timm(_parts), (r"last_conv", r"conv_head"), (r"last_norm", r"bn2"),
        (r"head", r"classifier")))}}


class MNASNet(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or pooled features where num_classes is 0.

    width: multiplies the channels of the stem and of the stages, which are then rounded to eights.
    stages: as STAGES. dropout: of the pooled features. norm_group: examples per BatchNorm
    statistic, None for the whole batch. remat: compute each block again in the backward pass.
    momentum: of BatchNorm's running statistics, which so follow over thousands of steps; timm's is
    0.9.
    """

    num_classes: int
    width: float
    stages: tuple[tuple[int, int, int, int, int], ...] = STAGES
    dropout: float = 0.2
    momentum: float = 0.9997
    norm_group: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        conv = functools.partial(Conv, kernel_init=init, dtype=self.dtype)
        norm = functools.partial(BatchNorm, self.norm_group, self.momentum, dtype=self.dtype)
        kind = nn.remat(InvertedResidual, static_argnums=(2,)) if self.remat else InvertedResidual

        x = conv(round_channels(32 * self.width), (3, 3), 2, name="stem_conv")(x)
        x = nn.relu(norm(name="stem_norm")(x, train))
        for i, (expand, features, kernel, blocks, stride) in enumerate(self.stages, 1):
            for j in range(blocks):
                block = kind(round_channels(features * self.width), expand * x.shape[-1], kernel,
                             1 if j else stride, 0, nn.relu, conv, conv, norm, dtype=self.dtype,
                             name=f"stage{i}_block{j}")
                x = block(x, train)
        x = nn.relu(norm(name="last_norm")(conv(1280, (1, 1), name="last_conv")(x), train))

        wide = jnp.promote_types(self.dtype, jnp.float32)
        x = x.mean((1, 2), dtype=wide)
        if not self.num_classes:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        init = nn.initializers.variance_scaling(1.0, "fan_out", "uniform")
        return nn.Dense(self.num_classes, kernel_init=init, dtype=wide, param_dtype=wide,
                        name="head")(x)


def _options(num_classes: int, *, dropout: BelowOne = 0.2, momentum: BelowOne = 0.9997,
             norm_group: Count | None = None, remat: bool = False,
             dtype: str = "float32") -> nn.Module:
    """The signature of every variant."""


@MODELS.register(params=2_218_512, **IMAGENET)
@takes(_options)
def mnasnet0_5(num_classes, **options):
    return MNASNet(num_classes, 0.5, **options)


@MODELS.register(params=3_170_208, **IMAGENET)
@takes(_options)
def mnasnet0_75(num_classes, **options):
    return MNASNet(num_classes, 0.75, **options)


@MODELS.register(params=4_383_312, **IMAGENET)
@takes(_options)
def mnasnet1_0(num_classes, **options):
    return MNASNet(num_classes, 1.0, **options)


@MODELS.register(params=6_282_256, **IMAGENET)
@takes(_options)
def mnasnet1_3(num_classes, **options):
    return MNASNet(num_classes, 1.3, **options)
