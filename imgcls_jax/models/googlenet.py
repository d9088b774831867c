"""GoogLeNet (Inception v1): as torchvision builds it, and with the paper's 5x5 branch."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from imgcls_jax.layers.conv_norm import ConvNormRelu
from imgcls_jax.layers.pool import adaptive_avg_pool, max_pool
from imgcls_jax.models import MODELS
from imgcls_jax.registry import BelowOne, Count
from imgcls_jax.types import Layout

PAPER = "arXiv 1409.4842"
# Channels of 1x1; 3x3 and its reduction; "5x5" and its reduction; pooled (table 1).
WIDTHS = {
    "3a": (64, (96, 128), (16, 32), 32), "3b": (128, (128, 192), (32, 96), 64),
    "4a": (192, (96, 208), (16, 48), 64), "4b": (160, (112, 224), (24, 64), 64),
    "4c": (128, (128, 256), (24, 64), 64), "4d": (112, (144, 288), (32, 64), 64),
    "4e": (256, (160, 320), (32, 128), 128),
    "5a": (256, (160, 320), (32, 128), 128), "5b": (384, (192, 384), (48, 128), 128)}
AUXILIARY = {"4a": "aux1", "4d": "aux2"}  # the heads, by the block that is their input
BRANCHES = {"conv1x1": "branch1", "reduce3x3": "branch2.0", "conv3x3": "branch2.1",
            "reduce5x5": "branch3.0", "conv5x5": "branch3.1", "project": "branch4.1"}
TORCHVISION = Layout("torch", (  # torchvision/models/googlenet.py
    *((rf"(inception\w+)/{ours}/{leaf}", rf"\1.{theirs}.{their_leaf}")
      for ours, theirs in BRANCHES.items()
      for leaf, their_leaf in (("conv", "conv"), ("norm", "bn"))),
    (r"stem(\d)/conv", r"conv\1.conv"),
    (r"stem(\d)/norm", r"conv\1.bn"),
    (r"auxiliary(\d)/project/conv", r"aux\1.conv.conv"),
    (r"auxiliary(\d)/project/norm", r"aux\1.conv.bn"),
    (r"auxiliary(\d)/hidden", r"aux\1.fc1"),
    (r"auxiliary(\d)/head", r"aux\1.fc2"),
    (r"head", r"fc")), unused=(r"aux\d\..*",))


class Inception(nn.Module):
    """Four parallel branches: f[B,H,W,C] -> f[B,H,W,D].

    widths: as in WIDTHS. size: of the third branch's kernel, 5 in the paper, 3 in torchvision.
    """

    widths: tuple
    size: int
    normalise: bool
    norm_group: int | None
    dtype: Any

    @nn.compact
    def __call__(self, x, train: bool):
        single, (reduce3, conv3), (reduce5, conv5), project = self.widths
        third = (self.size, self.size)
        return jnp.concatenate((
            _unit(self, single, (1, 1), name="conv1x1")(x, train),
            _unit(self, conv3, (3, 3), name="conv3x3")(
                _unit(self, reduce3, (1, 1), name="reduce3x3")(x, train), train),
            _unit(self, conv5, third, name="conv5x5")(
                _unit(self, reduce5, (1, 1), name="reduce5x5")(x, train), train),
            _unit(self, project, (1, 1), name="project")(max_pool(x, 3, 1, padding=1), train)), -1)


class Auxiliary(nn.Module):
    """A second classifier, f[B,H,W,C] -> logits f32[B,num_classes], dropping 70% of its units.

    The map is pooled to 4x4 cells as in torchvision; at 14x14 these overlap less than the paper's
    5x5 windows.
    """

    num_classes: int
    normalise: bool
    norm_group: int | None
    dtype: Any
    width: int = 128
    hidden: int = 1024
    dropout: float = 0.7

    @nn.compact
    def __call__(self, x, train: bool):
        x = _unit(self, self.width, (1, 1), name="project")(adaptive_avg_pool(x, 4), train)
        # Channels first, as torch flattens: published weights load without a permutation.
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        x = nn.relu(_dense(self.hidden, self.dtype, "hidden")(x))
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        wide = jnp.promote_types(self.dtype, jnp.float32)
        return _dense(self.num_classes, wide, "head")(x.astype(wide))


class GoogLeNet(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or pooled features where num_classes is 0.

    size: of the kernels of the third branch. normalise: BatchNorm, which the paper does not have.
    aux: two more heads on the blocks 4a and 4d, whose logits are sown as "aux1" and "aux2" into
      "aux_logits" in training.
    dropout: share of the units dropped before the head (0.4 in the paper, 0.2 in torchvision).
    blocks: names of WIDTHS, in order. divide: all channels are divided by it.
    norm_group: examples per BatchNorm statistic, None for the whole batch.
    remat: compute each block again in the backward pass.
    """

    num_classes: int
    size: int = 3
    normalise: bool = True
    aux: bool = False
    dropout: float = 0.2
    blocks: tuple[str, ...] = tuple(WIDTHS)
    divide: int = 1
    norm_group: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        block = nn.remat(Inception, static_argnums=(2,)) if self.remat else Inception
        x = _unit(self, 64 // self.divide, (7, 7), stride=2, name="stem1")(x, train)
        # Rounding up, as Caffe pools: "SAME" or a padding of 1 shifts the windows.
        x = max_pool(x, 3, 2, ceil=True)
        x = _unit(self, 64 // self.divide, (1, 1), name="stem2")(x, train)
        x = _unit(self, 192 // self.divide, (3, 3), name="stem3")(x, train)
        x = max_pool(x, 3, 2, ceil=True)
        for name in self.blocks:
            if name == "4a":
                x = max_pool(x, 3, 2, ceil=True)
            if name == "5a":
                x = max_pool(x, 2, 2, ceil=True)
            x = block(_divide(WIDTHS[name], self.divide), self.size, self.normalise,
                      self.norm_group, self.dtype, name=f"inception{name}")(x, train)
            head = AUXILIARY.get(name)
            if head and self.aux and self.num_classes and (train or self.is_initializing()):
                logits = Auxiliary(self.num_classes, self.normalise, self.norm_group, self.dtype,
                                   128 // self.divide, 1024 // self.divide,
                                   name=f"auxiliary{head[-1]}")(x, train)
                if train:
                    self.sow("aux_logits", head, logits)
        wide = jnp.promote_types(self.dtype, jnp.float32)
        x = x.mean((1, 2), dtype=wide)
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        return _dense(self.num_classes, wide, "head")(x) if self.num_classes else x


def _divide(widths, by: int):
    return tuple(_divide(w, by) if isinstance(w, tuple) else w // by for w in widths)


def _unit(module, features, kernel_size, *, name, stride=1):
    # Without normalisation the signal would vanish at a deviation of 0.01: Caffe uses Xavier's.
    init = nn.initializers.normal(0.01) if module.normalise else nn.initializers.xavier_uniform()
    return ConvNormRelu(features, kernel_size, stride, normalise=module.normalise,
                        norm_group=module.norm_group, kernel_init=init, dtype=module.dtype,
                        name=name)


def _dense(features, dtype, name):
    return nn.Dense(features, kernel_init=nn.initializers.normal(0.01), dtype=dtype,
                    param_dtype=jnp.promote_types(dtype, jnp.float32), name=name)


@MODELS.register(params=6_624_904, image_size=224, head="head", paper=PAPER,
                 layouts={"torchvision": TORCHVISION})
def googlenet(num_classes: int, *, aux: bool = False, dropout: BelowOne = 0.2,
              norm_group: Count | None = None, remat: bool = False,
              dtype: str = "float32") -> nn.Module:
    """torchvision's, whose "5x5" branch has kernels of 3x3; with BatchNorm."""
    return GoogLeNet(num_classes, 3, True, aux, dropout, norm_group=norm_group, remat=remat,
                     dtype=dtype)


@MODELS.register(params=7_005_832, image_size=224, head="head", paper=PAPER)
def googlenet_5x5(num_classes: int, *, normalise: bool = True, aux: bool = False,
                  dropout: BelowOne = 0.4, norm_group: Count | None = None, remat: bool = False,
                  dtype: str = "float32") -> nn.Module:
    """The paper's kernels; with BatchNorm, or without as in the paper (6,998,552 parameters)."""
    return GoogLeNet(num_classes, 5, normalise, aux, dropout, norm_group=norm_group, remat=remat,
                     dtype=dtype)
