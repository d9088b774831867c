"""Swin Transformer (arXiv 2103.14030), as torchvision builds it; timm's is the same for 224 pixels,
and at other sizes differs in the order of padding and shifting."""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from imgcls_jax.layers import windows
from imgcls_jax.layers.attention import CosineAttention, SelfAttention
from imgcls_jax.layers.conv import Conv
from imgcls_jax.layers.drop import DropPath
from imgcls_jax.layers.matmul import dense
from imgcls_jax.models import MODELS
from imgcls_jax.models._variants import takes
from imgcls_jax.registry import BelowOne
from imgcls_jax.types import Layout

# The references truncate this normal at +-2, which is 100 deviations: no effect.
INIT = nn.initializers.normal(0.02)


def _stage(name: str, factor: int = 1, shift: int = -1):
    """A rename whose `{0}` is `factor` times the number of our stage, plus `shift`."""
    return lambda match: match.expand(name.replace("{0}", str(factor * int(match[1]) + shift)))


BLOCK = r"stage(\d)_block(\d+)"


def torchvision(renames: tuple, constants: tuple, **options) -> Layout:
    """The layout of torchvision/models/swin_transformer.py. renames, constants: of attention and
    positions, as in Layout, but below a block. options: of Layout."""
    def name(leaf):
        return _stage(rf"features.{{0}}.\2.{leaf}", 2, -1)

    parts = (*renames, ("attention/out", "attn.proj"), ("hidden", "mlp.0"), ("out", "mlp.3"),
             (r"(norm\d)", r"\3"))
    return Layout("torch", (
        (r"stem_conv", r"features.0.0"),
        (r"stem_norm", r"features.0.2"),
        *((f"{BLOCK}/{ours}", name(theirs)) for ours, theirs in parts),
        (r"stage(\d)_merge", _stage(r"features.{0}.reduction", 2, -2)),
        (r"stage(\d)_norm", _stage(r"features.{0}.norm", 2, -2)),
        (r"norm", r"norm"),
        (r"head", r"head")), constants=tuple(
            (f"{BLOCK}/{ours}", name(theirs), value) for ours, theirs, value in constants),
        **options)


def timm(renames: tuple, **options) -> Layout:
    """The layout of timm/models/swin_transformer.py; arguments as of `torchvision`."""
    return _others(renames, -1, "head.fc", **options)


def microsoft(renames: tuple, **options) -> Layout:
    """The layout of github.com/microsoft/Swin-Transformer, where pixels are merged at the end of a
    stage; arguments as of `torchvision`."""
    return _others(renames, -2, "head", **options)


def _others(renames: tuple, merged: int, head: str, **options) -> Layout:
    def name(leaf):
        if isinstance(leaf, tuple):
            return lambda match: tuple(part and name(part)(match) for part in leaf)
        return _stage(rf"layers.{{0}}.blocks.\2.{leaf}")

    parts = (*renames, ("attention/out", "attn.proj"), ("hidden", "mlp.fc1"), ("out", "mlp.fc2"),
             (r"(norm\d)", r"\3"))
    return Layout("torch", (
        (r"stem_conv", r"patch_embed.proj"),
        (r"stem_norm", r"patch_embed.norm"),
        *((f"{BLOCK}/{ours}", name(theirs)) for ours, theirs in parts),
        (r"stage(\d)_merge", _stage(r"layers.{0}.downsample.reduction", shift=merged)),
        (r"stage(\d)_norm", _stage(r"layers.{0}.downsample.norm", shift=merged)),
        (r"norm", r"norm"),
        (r"head", head)), unused=(
            r".*\.(attn_mask|attn\.relative_(position_index|coords_table))",), **options)


def index(size: int) -> tuple:
    """Of the constants: the row of a table for each query and key of a window."""
    return ("positions/(table|hidden/kernel)", "attn.relative_position_index",
            lambda: windows.relative(size).ravel().astype(np.int64))


NAMES = (("attention/qkv", "attn.qkv"), ("positions/table", "attn.relative_position_bias_table"))
IMAGENET = {"image_size": 224, "head": "head", "paper": "arXiv 2103.14030",
            "layouts": {"torchvision": torchvision(NAMES, (index(7),)), "timm": timm(NAMES),
                        "microsoft": microsoft(NAMES)}}


class Block(nn.Module):
    """Attention within windows and a perceptron of each pixel: f[B,H,W,C] -> f[B,H,W,C].

    window: pixels of a side. shifted: windows begin half a window later than those of the block
      before, along each axis that has more than one.
    version: in 2, norms come after the branches, attention is by cosines, and a small network
      gives the bias of each offset.
    drop_path: rate at which a branch of an example is dropped in training.
    """

    heads: int
    window: int
    shifted: bool
    version: Literal[1, 2]
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x, train: bool):
        for number, branch in enumerate((self._attend, self._perceptron), 1):
            norm = _norm(self, f"norm{number}")
            y = norm(branch(x)) if self.version == 2 else branch(norm(x))
            x = x + DropPath(self.drop_path, name=f"drop_path{number}")(y, train)
        return x

    def _attend(self, x):
        height, width = x.shape[1:3]
        shift = windows.shift_of(height, width, self.window) if self.shifted else (0, 0)
        kind = windows.LogBias if self.version == 2 else windows.RelativeBias
        bias = kind(self.window, self.heads, name="positions")(_wide(self))[None]
        if any(shift):
            bias = bias + windows.apart(height, width, self.window, shift)
        attention = (
            CosineAttention(self.heads, self.dtype, INIT, name="attention") if self.version == 2
            else SelfAttention(self.heads, self.dtype, INIT, INIT, name="attention"))
        y = attention(windows.split(x, self.window, shift), score_bias=bias)
        return windows.join(y, height, width, self.window, shift)

    def _perceptron(self, x):
        y = nn.gelu(_dense(self, 4 * x.shape[-1], "hidden")(x), approximate=False)
        return _dense(self, x.shape[-1], "out")(y)


class Swin(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or pooled, normalised features where it is 0.

    blocks, heads: per stage. width: channels of the first stage; each further one has twice as
      many. Patches of 4x4 pixels enter it; 2x2 pixels of one stage become one of the next. Pixels
      beyond the last whole patch are left out; a map of odd size is filled up with zeros.
    window, version: see Block. remat: compute the inside of a block again in the backward pass.
    drop_path: stochastic depth of the last block; the rate grows linearly from 0 at the first.
    """

    num_classes: int
    width: int
    blocks: tuple[int, ...]
    heads: tuple[int, ...]
    window: int = 7
    version: Literal[1, 2] = 1
    drop_path: float = 0.0
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        # torch's default initial range of a convolution: +-1/sqrt(inputs).
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        x = Conv(self.width, (4, 4), 4, (0, 0), use_bias=True, kernel_init=init, dtype=self.dtype,
                 name="stem_conv")(x)
        x = _norm(self, "stem_norm")(x)
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        places = [(i, j) for i, count in enumerate(self.blocks, 1) for j in range(count)]
        for index, (i, j) in enumerate(places):
            if i > 1 and not j:
                x = self._merge(x, i)
            rate = self.drop_path * index / max(len(places) - 1, 1)
            x = block(self.heads[i - 1], self.window, j % 2 == 1, self.version, rate, self.dtype,
                      name=f"stage{i}_block{j}")(x, train)
        x = _norm(self, "norm")(x).mean((1, 2), dtype=_wide(self))
        if not self.num_classes:
            return x
        return nn.Dense(self.num_classes, kernel_init=INIT, dtype=_wide(self),
                        param_dtype=_wide(self), name="head")(x)

    def _merge(self, x, stage: int):
        """f[B,H,W,C] -> f[B,H/2,W/2,2C], rounded up; the four pixels by columns."""
        batch, height, width, channels = x.shape
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        x = x.reshape(batch, -(-height // 2), 2, -(-width // 2), 2, channels)
        x = x.transpose(0, 1, 3, 4, 2, 5).reshape(batch, *x.shape[1:4:2], 4 * channels)
        norm, reduce = _norm(self, f"stage{stage}_norm"), _dense(
            self, 2 * channels, f"stage{stage}_merge", use_bias=False)
        return norm(reduce(x)) if self.version == 2 else reduce(norm(x))


def _wide(module):
    return jnp.promote_types(module.dtype, jnp.float32)


def _norm(module, name):
    return nn.LayerNorm(1e-5, module.dtype, _wide(module), name=name)


def _dense(module, features, name, **options):
    return dense(features, kernel_init=INIT, dtype=module.dtype, name=name, **options)


def _options(num_classes: int, *, drop_path: BelowOne = 0.0, remat: bool = False,
             dtype: str = "float32") -> nn.Module:
    """The signature of every variant."""


@MODELS.register(params=28_288_354, **IMAGENET)
@takes(_options, drop_path=0.2)
def swin_t(num_classes, **options):
    return Swin(num_classes, 96, (2, 2, 6, 2), (3, 6, 12, 24), **options)


@MODELS.register(params=49_606_258, **IMAGENET)
@takes(_options, drop_path=0.3)
def swin_s(num_classes, **options):
    return Swin(num_classes, 96, (2, 2, 18, 2), (3, 6, 12, 24), **options)


@MODELS.register(params=87_768_224, **IMAGENET)
@takes(_options, drop_path=0.5)
def swin_b(num_classes, **options):
    return Swin(num_classes, 128, (2, 2, 18, 2), (4, 8, 16, 32), **options)
