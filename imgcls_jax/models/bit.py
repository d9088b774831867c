"""BiT (arXiv 1912.11370): a pre-activation ResNet (arXiv 1603.05027) of any width with group
normalisation and standardised kernels, without statistics over a batch; as timm builds it."""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from imgcls_jax.layers.conv import Conv
from imgcls_jax.layers.drop import DropPath
from imgcls_jax.layers.pool import max_pool
from imgcls_jax.models import MODELS
from imgcls_jax.models._variants import takes
from imgcls_jax.models._vit_names import big_vision
from imgcls_jax.registry import BelowOne, Count
from imgcls_jax.types import Layout


def standardise(kernel):
    """[h,w,in,out] -> the same, each of the out kernels with mean 0 and variance 1
    (arXiv 1903.10520, eq. 3)."""
    mean, var = kernel.mean((0, 1, 2)), kernel.var((0, 1, 2))
    return (kernel - mean) / jnp.sqrt(var + 1e-8)


class Block(nn.Module):
    """Pre-activation bottleneck, f[B,H,W,C] -> f[B,H/stride,W/stride,4*features].

    1x1, 3x3 with the stride, 1x1, each after a norm and ReLU. In the first block of a stage the
      shortcut is a 1x1 convolution of the normed input.
    drop_path: rate at which the block of an example is skipped in training.
    """

    features: int
    stride: int
    projection: bool
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x, train: bool):
        y = nn.relu(_norm(self, "norm1")(x))
        if self.projection:
            x = _conv(self, 4 * self.features, (1, 1), self.stride, "shortcut_conv")(y)
        y = _conv(self, self.features, (1, 1), 1, "conv1")(y)
        y = nn.relu(_norm(self, "norm2")(y))
        y = _conv(self, self.features, (3, 3), self.stride, "conv2")(y)
        y = nn.relu(_norm(self, "norm3")(y))
        y = _conv(self, 4 * self.features, (1, 1), 1, "conv3")(y)
        return x + DropPath(self.drop_path, name="drop_path")(y, train)


class BiT(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or pooled features where num_classes is 0.

    blocks: per stage; each stage after the first halves the size and doubles the width.
    width: channels of the stem, a multiple of 32, the groups of each norm; 64 in x1, 128 in x2.
    pool_padding: what is around the map that the stem pools: zeros, which matters as its values may
      be negative, in the published weights and timm; nothing in big_vision's bit_paper.py.
    drop_path: stochastic depth of the last block; the rate grows linearly from 0 at the first.
    zero_head: the head starts at zero, as for fine-tuning. remat: compute the inside of a block
      again in the backward pass.
    """

    num_classes: int
    blocks: tuple[int, ...]
    width: int
    drop_path: float = 0.0
    zero_head: bool = False
    pool_padding: Literal["zeros", "none"] = "zeros"
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = _conv(self, self.width, (7, 7), 2, "stem_conv")(x)
        x = max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, 2) if (
            self.pool_padding == "zeros") else max_pool(x, 3, 2, padding=1)
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        places = [(i, j) for i, count in enumerate(self.blocks) for j in range(count)]
        for index, (i, j) in enumerate(places):
            rate = self.drop_path * index / max(len(places) - 1, 1)
            x = block(self.width * 2**i, 2 if i and not j else 1, not j, rate, self.dtype,
                      name=f"stage{i + 1}_block{j}")(x, train)
        wide = _wide(self)
        x = nn.relu(_norm(self, "norm")(x)).mean((1, 2), dtype=wide)
        if not self.num_classes:
            return x
        init = nn.initializers.zeros if self.zero_head else nn.initializers.normal(0.01)
        return nn.Dense(self.num_classes, kernel_init=init, dtype=wide, param_dtype=wide,
                        name="head")(x)


def _wide(module):
    return jnp.promote_types(module.dtype, jnp.float32)


def _conv(module, features, kernel_size, stride, name):
    init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    return Conv(features, kernel_size, stride, kernel_init=init, kernel_map=standardise,
                dtype=module.dtype, name=name)


def _norm(module, name):
    return nn.GroupNorm(32, epsilon=1e-5, dtype=module.dtype, param_dtype=_wide(module), name=name)


def _stage(name: str):
    """A rename whose `{0}` is the number of our stage, counted from 0."""
    return lambda match: match.expand(name.replace("{0}", str(int(match[1]) - 1)))


def _unit(name: str):
    """A rename of a part of a block to one of google-research/big_transfer's units, numbered
    from 01; `{0}` in it is the letter of our number."""
    def rename(match):
        stage, block, *number = match.groups()
        letter = "abc"[int(number[0]) - 1] if number else "a"
        return f"resnet/block{stage}/unit{int(block) + 1:02d}/{name.replace('{0}', letter)}"

    return rename


NPZ = Layout("npz", (
    (r"stem_conv", r"resnet/root_block/standardized_conv2d"),
    (r"stage(\d)_block(\d+)/shortcut_conv", _unit("a/proj/standardized_conv2d")),
    (r"stage(\d)_block(\d+)/conv(\d)", _unit("{0}/standardized_conv2d")),
    (r"stage(\d)_block(\d+)/norm(\d)/scale", _unit("{0}/group_norm/gamma")),
    (r"stage(\d)_block(\d+)/norm(\d)/bias", _unit("{0}/group_norm/beta")),
    (r"norm/scale", r"resnet/group_norm/gamma"),
    (r"norm/bias", r"resnet/group_norm/beta"),
    (r"head", r"resnet/head/conv2d")))


def _linen(name: str):
    """A rename of a part of a block to one of big_vision's units, numbered from 01."""
    return lambda match: match.expand(rf"block\1/unit{int(match[2]) + 1:02d}/{name}")


BIG_VISION = big_vision((  # big_vision/models/bit_paper.py
    (r"stem_conv", r"root_block/conv_root"),
    (r"stage(\d)_block(\d+)/shortcut_conv", _linen("conv_proj")),
    (r"stage(\d)_block(\d+)/conv(\d)", _linen(r"conv\3")),
    (r"stage(\d)_block(\d+)/norm(\d)", _linen(r"gn\3")),
    (r"norm", r"norm-pre-head"),
    (r"head", r"head")), shapes=((r".*(gn\d|norm-pre-head)/.*", (1, 1, 1, -1)),),
    tells=((r"(.*/)?norm-pre-head/scale", "model", {"pool_padding": "none"}),
           (r"(.*/)?norm-pre-head/scale", "data", {"mean": (0.5,), "std": (0.5,)})))


def _facts(factor: int) -> dict:
    layout = Layout("torch", (  # timm/models/resnetv2.py; its head is a 1x1 convolution
        (r"stem_conv", r"stem.conv"),
        (r"stage(\d)_block(\d+)/shortcut_conv", _stage(r"stages.{0}.blocks.\2.downsample.conv")),
        (r"stage(\d)_block(\d+)/(conv\d|norm\d)", _stage(r"stages.{0}.blocks.\2.\3")),
        (r"norm", r"norm"),
        (r"head", r"head.fc")), shapes=((r"head\.fc\.weight", (-1, 2048 * factor, 1, 1)),))
    return {"image_size": 224, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "head": "head",
            "paper": "arXiv 1912.11370",
            "layouts": {"timm": layout, "npz": NPZ, "big_vision": BIG_VISION}}


def _options(num_classes: int, *, width: Count = 64, drop_path: BelowOne = 0.0,
             zero_head: bool = False, pool_padding: Literal["zeros", "none"] = "zeros",
             remat: bool = False, dtype: str = "float32") -> nn.Module:
    """The signature of every variant."""


@MODELS.register(params=25_549_352, **_facts(1))
@takes(_options)
def bit_r50x1(num_classes, **options):
    return BiT(num_classes, (3, 4, 6, 3), **options)


@MODELS.register(params=217_319_080, **_facts(3))
@takes(_options, width=192)
def bit_r50x3(num_classes, **options):
    return BiT(num_classes, (3, 4, 6, 3), **options)


@MODELS.register(params=44_541_480, **_facts(1))
@takes(_options)
def bit_r101x1(num_classes, **options):
    return BiT(num_classes, (3, 4, 23, 3), **options)


@MODELS.register(params=387_934_888, **_facts(3))
@takes(_options, width=192)
def bit_r101x3(num_classes, **options):
    return BiT(num_classes, (3, 4, 23, 3), **options)


@MODELS.register(params=236_335_208, **_facts(2))
@takes(_options, width=128)
def bit_r152x2(num_classes, **options):
    return BiT(num_classes, (3, 8, 36, 3), **options)


@MODELS.register(params=936_533_224, **_facts(4))
@takes(_options, width=256)
def bit_r152x4(num_classes, **options):
    return BiT(num_classes, (3, 8, 36, 3), **options)
