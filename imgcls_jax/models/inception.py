"""Inception v3, as torchvision and timm build it."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from imgcls_jax.errors import ConfigError
from imgcls_jax.layers.conv_norm import ConvNormRelu
from imgcls_jax.layers.pool import avg_pool, max_pool
from imgcls_jax.models import MODELS
from imgcls_jax.registry import BelowOne, Count
from imgcls_jax.types import Layout

PAPER = "arXiv 1512.00567"
UNITS = (
    (r"stem1", r"Conv2d_1a_3x3"), (r"stem2", r"Conv2d_2a_3x3"), (r"stem3", r"Conv2d_2b_3x3"),
    (r"stem4", r"Conv2d_3b_1x1"), (r"stem5", r"Conv2d_4a_3x3"),
    (r"mixed(\w+)/project", r"Mixed_\1.branch_pool"),
    (r"mixed(\w+)/double(.)x._(\w+)", r"Mixed_\1.branch\2x\2dbl_\3"),
    (r"mixed(\w+)/(branch\w+)", r"Mixed_\1.\2"),
    (r"auxiliary1/conv(\d)", r"AuxLogits.conv\1"))
TORCH = Layout("torch", (  # torchvision/models/inception.py; timm's inception_v3.py has the same
    *((f"{ours}/{leaf}", f"{theirs}.{their_leaf}") for ours, theirs in UNITS
      for leaf, their_leaf in (("conv", "conv"), ("norm", "bn"))),
    (r"auxiliary1/head", r"AuxLogits.fc"),
    (r"head", r"fc")), unused=(r"AuxLogits\..*",))
SPLIT = (1, 3), (3, 1)  # two parallel kernels in place of one


def _same(project: int):
    """Figure 5 of the paper."""
    return (("branch1x1", ((64, (1, 1)),)),
            ("branch5x5", ((48, (1, 1)), (64, (5, 5)))),
            ("double3x3", ((64, (1, 1)), (96, (3, 3)), (96, (3, 3))))), project


def _factorised(width: int):
    """Figure 6: n x n as n x 1 after 1 x n."""
    row, column = (1, 7), (7, 1)
    return (("branch1x1", ((192, (1, 1)),)),
            ("branch7x7", ((width, (1, 1)), (width, row), (192, column))),
            ("double7x7", ((width, (1, 1)), (width, column), (width, row), (width, column),
                           (192, row)))), 192


def _wide():
    """Figure 7."""
    return (("branch1x1", ((320, (1, 1)),)),
            ("branch3x3", ((384, (1, 1)), (384, SPLIT))),
            ("double3x3", ((448, (1, 1)), (384, (3, 3)), (384, SPLIT)))), 192


# Name -> (branches, channels of the pooling branch; 0: the block halves the map).
BLOCKS = {
    "5b": _same(32), "5c": _same(64), "5d": _same(64),
    "6a": ((("branch3x3", ((384, (3, 3)),)),
            ("double3x3", ((64, (1, 1)), (96, (3, 3)), (96, (3, 3))))), 0),
    "6b": _factorised(128), "6c": _factorised(160), "6d": _factorised(160), "6e": _factorised(192),
    "7a": ((("branch3x3", ((192, (1, 1)), (320, (3, 3)))),
            ("branch7x7x3", ((192, (1, 1)), (192, (1, 7)), (192, (7, 1)), (192, (3, 3))))), 0),
    "7b": _wide(), "7c": _wide()}
AUXILIARY = "6e"  # the block that is the auxiliary head's input


class Mixed(nn.Module):
    """Parallel branches, f[B,H,W,C] -> f[B,H,W,D], or half the size (rounded down).

    branches: (name, its convolutions as (features, kernel size)); project: as in BLOCKS.
    divide: all features are divided by it.
    """

    branches: tuple
    project: int
    divide: int
    norm_group: int | None
    dtype: Any

    @nn.compact
    def __call__(self, x, train: bool):
        found = []
        for branch, convolutions in self.branches:
            y = x
            for i, (features, size) in enumerate(convolutions, 1):
                last = i == len(convolutions)
                name = branch if len(convolutions) == 1 else f"{branch}_{i}"
                features //= self.divide
                if size == SPLIT:
                    y = jnp.concatenate([_unit(self, features, part, f"{name}{letter}")(y, train)
                                         for part, letter in zip(SPLIT, "ab", strict=True)], -1)
                else:
                    halve = last and not self.project
                    y = _unit(self, features, size, name, stride=2 if halve else 1,
                              padding=(0, 0) if halve else None)(y, train)
            found.append(y)
        if self.project:
            y = avg_pool(x, 3, 1, padding=1)
            found.append(_unit(self, self.project // self.divide, (1, 1), "project")(y, train))
        else:
            found.append(max_pool(x, 3, 2))
        return jnp.concatenate(found, -1)


class Auxiliary(nn.Module):
    """The second classifier: f[B,H,W,C], H and W at least 17 -> logits f32[B,num_classes]."""

    num_classes: int
    divide: int
    norm_group: int | None
    dtype: Any

    @nn.compact
    def __call__(self, x, train: bool):
        if self.is_initializing():  # images of any size make the same parameters
            x = jnp.zeros((1, 17, 17, x.shape[-1]), x.dtype)
        if min(x.shape[1:3]) < 17:
            raise ConfigError(f"the auxiliary head needs a map of 17x17, not "
                              f"{x.shape[1]}x{x.shape[2]}", where="config.model.aux",
                              fix="use images of 299 pixels or more, or aux=False")
        x = avg_pool(x, 5, 3)
        x = _unit(self, 128 // self.divide, (1, 1), "conv0")(x, train)
        x = _unit(self, 768 // self.divide, (5, 5), "conv1", padding=(0, 0), std=0.01)(x, train)
        wide = jnp.promote_types(self.dtype, jnp.float32)
        return _head(self.num_classes, 0.001, wide)(x.mean((1, 2), dtype=wide))


class InceptionV3(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or pooled features where num_classes is 0.

    aux: a second head on block 6e, whose logits are sown as "aux1" into "aux_logits" in training.
    dropout: share of the units dropped before the head.
    blocks: names of BLOCKS, in order. divide: all channels are divided by it.
    norm_group: examples per BatchNorm statistic, None for the whole batch.
    remat: compute each block again in the backward pass.

    ConfigError if the image is smaller than 75 pixels, or than 299 in training with `aux`.
    """

    num_classes: int
    aux: bool = True
    dropout: float = 0.5
    blocks: tuple[str, ...] = tuple(BLOCKS)
    divide: int = 1
    norm_group: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        mixed = nn.remat(Mixed, static_argnums=(2,)) if self.remat else Mixed
        valid, by = (0, 0), self.divide
        x = _unit(self, 32 // by, (3, 3), "stem1", stride=2, padding=valid)(x, train)
        x = _unit(self, 32 // by, (3, 3), "stem2", padding=valid)(x, train)
        x = max_pool(_unit(self, 64 // by, (3, 3), "stem3")(x, train), 3, 2)
        x = _unit(self, 80 // by, (1, 1), "stem4")(x, train)
        x = max_pool(_unit(self, 192 // by, (3, 3), "stem5", padding=valid)(x, train), 3, 2)
        for name in self.blocks:
            x = mixed(*BLOCKS[name], by, self.norm_group, self.dtype, name=f"mixed{name}")(x, train)
            heads = self.aux and self.num_classes and (train or self.is_initializing())
            if name == AUXILIARY and heads:
                logits = Auxiliary(self.num_classes, by, self.norm_group, self.dtype,
                                   name="auxiliary1")(x, train)
                if train:
                    self.sow("aux_logits", "aux1", logits)
        wide = jnp.promote_types(self.dtype, jnp.float32)
        x = x.mean((1, 2), dtype=wide)
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        return _head(self.num_classes, 0.1, wide)(x) if self.num_classes else x


def _unit(module, features, kernel_size, name, *, stride=1, padding=None, std=0.1):
    return ConvNormRelu(features, kernel_size, stride, padding, norm_group=module.norm_group,
                        kernel_init=nn.initializers.normal(std), dtype=module.dtype, name=name)


def _head(num_classes, std, dtype):
    return nn.Dense(num_classes, kernel_init=nn.initializers.normal(std), dtype=dtype,
                    param_dtype=dtype, name="head")


@MODELS.register(params=27_161_264, image_size=299, head="head", paper=PAPER,
                 layouts={"torchvision": TORCH, "timm": TORCH})
def inception_v3(num_classes: int, *, aux: bool = True, dropout: BelowOne = 0.5,
                 norm_group: Count | None = None, remat: bool = False,
                 dtype: str = "float32") -> nn.Module:
    """The parameters include the auxiliary head; training with it needs 299 pixels or more."""
    return InceptionV3(num_classes, aux, dropout, norm_group=norm_group, remat=remat, dtype=dtype)
