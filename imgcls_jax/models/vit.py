"""Vision Transformer (arXiv 2010.11929) with token, average or attention pooling."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from imgcls_jax.errors import ConfigError
from imgcls_jax.layers.attention import SelfAttention, attend
from imgcls_jax.layers.conv import Conv
from imgcls_jax.layers.matmul import dense
from imgcls_jax.layers.norm import BatchNorm
from imgcls_jax.layers.patches import Patches, patch_grid
from imgcls_jax.models import MODELS, _vit_names
from imgcls_jax.models._variants import takes
from imgcls_jax.registry import BelowOne, Count, Positive

PAPER = "arXiv 2010.11929"


class Mlp(nn.Module):
    """Dense, GELU, dense: f[B,N,D] -> f[B,N,D].

    hidden: units in between, None for 4 * D. kernel_init: None for Xavier's. swiglu (arXiv
    2002.05202): the first dense layer has 2 * hidden units, and silu of the first half times the
    second half takes the place of GELU.
    """

    gelu: Literal["exact", "tanh"]
    dropout: float
    dtype: Any
    hidden: int | None = None
    kernel_init: Callable | None = None
    swiglu: bool = False

    @nn.compact
    def __call__(self, x, train: bool):
        bias = nn.initializers.zeros if self.kernel_init else nn.initializers.normal(1e-6)
        width = x.shape[-1]
        units = (self.hidden or 4 * width) * (1 + self.swiglu)
        x = _dense(self, units, "hidden", self.kernel_init, bias_init=bias)(x)
        if self.swiglu:
            gate, x = jnp.split(x, 2, -1)
            x = nn.silu(gate) * x
        else:
            x = nn.gelu(x, approximate=self.gelu == "tanh")
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return _dense(self, width, "out", self.kernel_init, bias_init=bias)(x)


class AttentionPool(nn.Module):
    """One learned query attends to all tokens (MAP, arXiv 2106.04560): f[B,N,D] -> f[B,D]."""

    heads: int
    gelu: Literal["exact", "tanh"]
    dtype: Any
    hidden: int | None = None  # of its Mlp

    @nn.compact
    def __call__(self, x, train: bool):
        batch, _, width = x.shape
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, 1, width), _wide(self))
        probe = jnp.tile(probe.astype(self.dtype), (batch, 1, 1))
        q, k, v = (_dense(self, width, name)(y).reshape(batch, -1, self.heads, width // self.heads)
                   for name, y in (("query", probe), ("key", x), ("value", x)))
        y = attend(q, k, v).reshape(batch, 1, width)
        y = _dense(self, width, "out")(y)
        mlp = Mlp(self.gelu, 0.0, self.dtype, self.hidden, name="mlp")
        return (y + mlp(_norm(self, "norm")(y), train))[:, 0]


class Block(nn.Module):
    """Pre-norm encoder block: f[B,N,D] -> f[B,N,D].

    drop_path: rate at which a whole branch of an example is dropped in training.
    hidden, kernel_init: see Mlp. layer_scale: initial factor of each channel of a branch
      (arXiv 2103.17239), None for no factor. swiglu: see Mlp. recomputed, qkv_bias, qk_norm: see
      SelfAttention. epsilon: of all norms.
    """

    heads: int
    gelu: Literal["exact", "tanh"]
    dropout: float
    drop_path: float
    dtype: Any
    hidden: int | None = None
    kernel_init: Callable | None = None
    layer_scale: float | None = None
    recomputed: Literal[0, 1, 2] = 0
    swiglu: bool = False
    qkv_bias: bool = True
    qk_norm: bool = False
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x, train: bool, rotation=None):
        """rotation: see SelfAttention."""
        def branch(y, number):
            y = nn.Dropout(self.dropout, deterministic=not train)(y)
            if self.layer_scale is not None:
                init = nn.initializers.constant(self.layer_scale)
                scale = self.param(f"layer_scale{number}", init, x.shape[-1:], _wide(self))
                y = y * scale.astype(self.dtype)
            return nn.Dropout(self.drop_path, (1, 2), deterministic=not train)(y)

        # With fan-in each of the three square matrices (queries, keys, values) has Xavier's range.
        inits = {} if self.kernel_init is None else {
            "kernel_init": self.kernel_init, "qkv_init": self.kernel_init}
        norm = functools.partial(nn.LayerNorm, self.epsilon, self.dtype, _wide(self))
        attention = SelfAttention(self.heads, self.dtype, name="attention", bias=self.qkv_bias,
                                  norm=norm if self.qk_norm else None,
                                  recomputed=self.recomputed, **inits)
        x = x + branch(attention(_norm(self, "norm1")(x), rotation), 1)
        mlp = Mlp(self.gelu, self.dropout, self.dtype, self.hidden, self.kernel_init, self.swiglu,
                  name="mlp")
        return x + branch(mlp(_norm(self, "norm2")(x), train), 2)


class ViT(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or pooled features where num_classes is 0.

    pool: a class token, the average of the patches, both side by side (2 * width features), or
      attention with a learned query.
    positions: a learned table, class token included; fixed sines and cosines without it; or none
      but angles by which queries and keys of patches are turned (rotation2d).
    registers: tokens that only take part in attention (arXiv 2309.16588); they have no positions.
    representation: a dense layer with tanh between pooling and head.
    dropout: share of units dropped after each dense layer of a block and after the positions.
    drop_path: stochastic depth of the last block; the rate grows linearly from 0 at the first, or
      is the same for all blocks (drop_path_rule="constant").
    head_bias: initial bias, such as -6.9 for sigmoid losses. zero_head: head starts at zero.
    gelu: exact as in torchvision and timm, or the tanh form of big_vision.
    stem: channels of 3x3 convolutions with BatchNorm, at full size, before the patches
      (after arXiv 2106.14881); norm_group is theirs.
    hidden, layer_scale, swiglu, qkv_bias, qk_norm, epsilon: see Block. token_position: whether the
      class token has a position.
    distilled: a second token with its own head (arXiv 2012.12877). Logits are the mean of the two
      heads, features the mean of the two tokens; in training the logits of each head are also sown
      into `aux_logits`, as "class" and "distillation". Without distillation_head, logits and
      features are those of the class token alone.
    kernels: drawn from Xavier's range as in ViT, or from a normal of deviation 0.02 as in DeiT,
      whose head does not start at zero.
    remat: compute the inside of a block again in the backward pass instead of keeping it;
      "values": only the values of attention; "keys_values": these and the keys.

    ConfigError if the patch size does not divide the image.
    """

    num_classes: int
    patch_size: int
    width: int
    depth: int
    heads: int
    pool: Literal["token", "gap", "token_gap", "map"] = "token"
    positions: Literal["learned", "sincos2d", "rotary"] = "learned"
    representation: bool = False
    dropout: float = 0.0
    drop_path: float = 0.0
    head_bias: float = 0.0
    zero_head: bool = True
    gelu: Literal["exact", "tanh"] = "exact"
    stem: tuple[int, ...] = ()
    norm_group: int | None = None
    dtype: Any = jnp.float32
    hidden: int | None = None
    layer_scale: float | None = None
    token_position: bool = True
    distilled: bool = False
    distillation_head: bool = True
    drop_path_rule: Literal["linear", "constant"] = "linear"
    kernels: Literal["xavier", "normal"] = "xavier"
    remat: Literal[False, True, "values", "keys_values"] = False
    registers: int = 0
    swiglu: bool = False
    qkv_bias: bool = True
    qk_norm: bool = False
    epsilon: float = 1e-6

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of an image: what a table of positions is for."""
        return patch_grid(height, width, self.patch_size)

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = x.astype(self.dtype)
        for i, channels in enumerate(self.stem):
            x = Conv(channels, dtype=self.dtype, name=f"stem_conv{i}")(x)
            norm = BatchNorm(self.norm_group, dtype=self.dtype, name=f"stem_norm{i}")
            x = nn.relu(norm(x, train))
        grid = self.grid(*x.shape[1:3])
        # torch's default initial range of a convolution, which DeiT keeps: +-1/sqrt(inputs).
        kernel_init = nn.initializers.lecun_normal() if self.kernels == "xavier" else (
            nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"))
        x = Patches(self.width, self.patch_size, self.dtype, kernel_init, name="patches")(x)
        x = self._place(x, grid)
        rotation = None
        if self.positions == "rotary":
            rotation = tuple(jnp.asarray(table, _wide(self)) for table in rotation2d(
                grid, self.width // self.heads, x.shape[1] - math.prod(grid)))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        recomputed = {"values": 1, "keys_values": 2}.get(self.remat, 0)
        block = nn.remat(Block, static_argnums=(2,)) if self.remat is True else Block
        for i in range(self.depth):
            linear = i / max(self.depth - 1, 1) if self.drop_path_rule == "linear" else 1
            x = block(self.heads, self.gelu, self.dropout, self.drop_path * linear, self.dtype,
                      self.hidden, self._normal(), self.layer_scale, recomputed, self.swiglu,
                      self.qkv_bias, self.qk_norm, self.epsilon, name=f"block{i}"
                      )(x, train, rotation)
        x = _norm(self, "norm")(x)
        if self.distilled and self.distillation_head:
            return self._two_heads(x[:, 0].astype(_wide(self)), x[:, 1].astype(_wide(self)), train)
        token, x = x[:, 0], x[:, x.shape[1] - math.prod(grid) if self.registers else 0:]
        if self.pool == "token":
            x = token
        elif self.pool == "gap":
            x = x.mean(1)
        elif self.pool == "token_gap":
            x = jnp.concatenate((token, x[:, -math.prod(grid):].mean(1)), -1)
        else:
            x = AttentionPool(self.heads, self.gelu, self.dtype, self.hidden, name="pool")(x, train)
        if self.representation:
            x = jnp.tanh(_dense(self, self.width, "representation", kernel_init=kernel_init)(x))
        x = x.astype(_wide(self))
        return self._head("head")(x) if self.num_classes else x

    def _head(self, name):
        init = self._normal() or (
            nn.initializers.zeros if self.zero_head else nn.initializers.lecun_normal())
        return nn.Dense(self.num_classes, dtype=_wide(self), param_dtype=_wide(self), name=name,
                        kernel_init=init, bias_init=nn.initializers.constant(self.head_bias))

    def _two_heads(self, token, distillation, train):
        """Features f[B,D] of two tokens -> logits; see `distilled`."""
        if not self.num_classes:
            return (token + distillation) / 2
        logits = self._head("head")(token)
        others = self._head("head_distillation")(distillation)
        if train:
            self.sow("aux_logits", "class", logits)
            self.sow("aux_logits", "distillation", others)
        return (logits + others) / 2

    def _normal(self):
        """The initialiser of all kernels, None if each has its own."""
        # The references truncate this normal at +-2, which is 100 deviations: no effect.
        return nn.initializers.normal(0.02) if self.kernels == "normal" else None

    def _place(self, x, grid):
        """Tokens with positions: first the class token, then the distillation token, the others."""
        names = ("token", "token_distillation")[:("token" in self.pool) + self.distilled]
        init = self._normal() or nn.initializers.zeros
        tokens = [self.param(name, init, (1, 1, self.width), _wide(self)) for name in names]
        tokens = [jnp.tile(token.astype(self.dtype), (len(x), 1, 1)) for token in tokens]
        placed = self.positions == "learned" and self.token_position
        if self.positions == "sincos2d":
            x = x + jnp.asarray(sincos2d(grid, self.width), self.dtype)
        if placed:
            x = jnp.concatenate((*tokens, x), 1)
        if self.positions == "learned":
            init = nn.initializers.normal(0.02)
            table = self.param("positions", init, (1, *x.shape[1:]), _wide(self))
            x = x + table.astype(self.dtype)
        x = x if placed else jnp.concatenate((*tokens, x), 1)
        if self.registers:
            shape = (1, self.registers, self.width)
            others = self.param("registers", nn.initializers.normal(0.02), shape, _wide(self))
            others = jnp.tile(others.astype(self.dtype), (len(x), 1, 1))
            x = jnp.concatenate((x[:, :len(tokens)], others, x[:, len(tokens):]), 1)
        return x


def sincos2d(grid: tuple[int, int], width: int) -> np.ndarray:
    """Fixed positions f32[1,N,width]: sines, cosines of x, then of y (arXiv 2205.01580)."""
    if width % 4:
        raise ConfigError(f"sincos2d positions need a width divisible by 4, not {width}",
                          where="config.model.positions", fix=f"use width {width // 4 * 4 + 4}")
    y, x = np.mgrid[:grid[0], :grid[1]].reshape(2, -1, 1)
    frequency = 10_000.0 ** -np.linspace(0, 1, width // 4)
    parts = [f(axis * frequency) for axis in (x, y) for f in (np.sin, np.cos)]
    return np.concatenate(parts, 1, dtype=np.float32)[None]


def rotation2d(grid: tuple[int, int], size: int, others: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines f[others+N,size] of patches whose centers lie in (-1, 1) on each axis: of
    y, then of x, in size/4 frequencies each, then both again; other tokens come first and are not
    turned. As DINOv3 (arXiv 2508.10104, section 3.2; transformers/models/dinov3_vit)."""
    if size % 4:
        raise ConfigError(f"rotary positions need heads of a multiple of 4 channels, not {size}",
                          where="config.model.positions", fix="use another number of heads")
    axes = [2 * (np.arange(n) + 0.5) / n - 1 for n in grid]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2, 1)
    frequency = 100.0 ** -(4 * np.arange(size // 4) / size)
    angles = np.tile((2 * np.pi * places * frequency).reshape(len(places), -1), 2)
    angles = np.concatenate((np.zeros((others, size)), angles))
    return np.cos(angles), np.sin(angles)


def _wide(module):
    return jnp.promote_types(module.dtype, jnp.float32)


def _norm(module, name):
    epsilon = getattr(module, "epsilon", 1e-6)
    return nn.LayerNorm(epsilon=epsilon, dtype=module.dtype, param_dtype=_wide(module), name=name)


def _dense(module, features, name, kernel_init=None, **kwargs):
    return dense(features, kernel_init=kernel_init or nn.initializers.xavier_uniform(),
                 dtype=module.dtype, name=name, **kwargs)


def _imagenet(width: int, heads: int) -> dict:
    npz, big_vision = (_vit_names.by_head(layout, heads, width)
                       for layout in (_vit_names.NPZ, _vit_names.BIG_VISION))
    return {"image_size": 224, "head": "head", "paper": PAPER,
            "layouts": {"torchvision": _vit_names.TORCHVISION, "timm": _vit_names.TIMM,
                        "transformers": _vit_names.transformers("vit"),
                        "npz": npz, "big_vision": big_vision}}


def _options(num_classes: int, *, pool: Literal["token", "gap", "token_gap", "map"] = "token",
             positions: Literal["learned", "sincos2d", "rotary"] = "learned",
             representation: bool = False, registers: Count | Literal[0] = 0,
             dropout: BelowOne = 0.0, drop_path: BelowOne = 0.0, head_bias: float = 0.0,
             zero_head: bool = True, gelu: Literal["exact", "tanh"] = "exact",
             swiglu: bool = False, qk_norm: bool = False, layer_scale: Positive | None = None,
             remat: Literal[False, True, "values", "keys_values"] = False,
             dtype: str = "float32") -> nn.Module:
    """The signature of every variant."""


@MODELS.register(params=5_719_720, **_imagenet(192, 3))
@takes(_options)
def vit_ti8(num_classes, **options):
    return ViT(num_classes, 8, 192, 12, 3, **options)


@MODELS.register(params=5_694_376, **_imagenet(192, 3))
@takes(_options)
def vit_ti14(num_classes, **options):
    return ViT(num_classes, 14, 192, 12, 3, **options)


@MODELS.register(params=5_717_416, **_imagenet(192, 3))
@takes(_options)
def vit_ti16(num_classes, **options):
    return ViT(num_classes, 16, 192, 12, 3, **options)


@MODELS.register(params=6_131_560, **_imagenet(192, 3))
@takes(_options)
def vit_ti32(num_classes, **options):
    return ViT(num_classes, 32, 192, 12, 3, **options)


@MODELS.register(params=22_055_272, **_imagenet(384, 6))
@takes(_options)
def vit_s8(num_classes, **options):
    return ViT(num_classes, 8, 384, 12, 6, **options)


@MODELS.register(params=22_004_584, **_imagenet(384, 6))
@takes(_options)
def vit_s14(num_classes, **options):
    return ViT(num_classes, 14, 384, 12, 6, **options)


@MODELS.register(params=22_050_664, **_imagenet(384, 6))
@takes(_options)
def vit_s16(num_classes, **options):
    return ViT(num_classes, 16, 384, 12, 6, **options)


@MODELS.register(params=22_878_952, **_imagenet(384, 6))
@takes(_options)
def vit_s32(num_classes, **options):
    return ViT(num_classes, 32, 384, 12, 6, **options)


@MODELS.register(params=86_576_872, **_imagenet(768, 12))
@takes(_options)
def vit_b8(num_classes, **options):
    return ViT(num_classes, 8, 768, 12, 12, **options)


@MODELS.register(params=86_475_496, **_imagenet(768, 12))
@takes(_options)
def vit_b14(num_classes, **options):
    return ViT(num_classes, 14, 768, 12, 12, **options)


@MODELS.register(params=86_567_656, **_imagenet(768, 12))
@takes(_options)
def vit_b16(num_classes, **options):
    return ViT(num_classes, 16, 768, 12, 12, **options)


@MODELS.register(params=88_224_232, **_imagenet(768, 12))
@takes(_options)
def vit_b32(num_classes, **options):
    return ViT(num_classes, 32, 768, 12, 12, **options)


@MODELS.register(params=304_338_920, **_imagenet(1024, 16))
@takes(_options)
def vit_l8(num_classes, **options):
    return ViT(num_classes, 8, 1024, 24, 16, **options)


@MODELS.register(params=304_203_752, **_imagenet(1024, 16))
@takes(_options)
def vit_l14(num_classes, **options):
    return ViT(num_classes, 14, 1024, 24, 16, **options)


@MODELS.register(params=304_326_632, **_imagenet(1024, 16))
@takes(_options)
def vit_l16(num_classes, **options):
    return ViT(num_classes, 16, 1024, 24, 16, **options)


@MODELS.register(params=306_535_400, **_imagenet(1024, 16))
@takes(_options)
def vit_l32(num_classes, **options):
    return ViT(num_classes, 32, 1024, 24, 16, **options)


@MODELS.register(params=632_214_760, **_imagenet(1280, 16))
@takes(_options)
def vit_h8(num_classes, **options):
    return ViT(num_classes, 8, 1280, 32, 16, **options)


@MODELS.register(params=632_045_800, **_imagenet(1280, 16))
@takes(_options)
def vit_h14(num_classes, **options):
    return ViT(num_classes, 14, 1280, 32, 16, **options)


@MODELS.register(params=632_199_400, **_imagenet(1280, 16))
@takes(_options)
def vit_h16(num_classes, **options):
    return ViT(num_classes, 16, 1280, 32, 16, **options)


@MODELS.register(params=634_960_360, **_imagenet(1280, 16))
@takes(_options)
def vit_h32(num_classes, **options):
    return ViT(num_classes, 32, 1280, 32, 16, **options)


@MODELS.register(params=1_012_611_432, **{**_imagenet(1408, 16), "paper": "arXiv 2106.04560"})
@takes(_options)
def vit_g14(num_classes, **options):
    return ViT(num_classes, 14, 1408, 40, 16, hidden=6144, **options)


@MODELS.register(image_size=32, classes=10, mean=(0.4914, 0.4822, 0.4465),
                 std=(0.2470, 0.2435, 0.2616), params=1_332_426, head="head", paper=PAPER)
def vit_mini(num_classes: int, *, patch_size: Count = 4, width: Count = 128, depth: int = 6,
             heads: Count = 4, stem: tuple[int, ...] = (64,),
             pool: Literal["token", "gap", "map"] = "gap",
             positions: Literal["learned", "sincos2d"] = "learned", dropout: BelowOne = 0.0,
             drop_path: BelowOne = 0.0, norm_group: Count | None = None, remat: bool = False,
             dtype: str = "float32") -> nn.Module:
    """For images of 8 to 32 pixels; a patch of 1 or 2 pixels for the smallest."""
    return ViT(num_classes, patch_size, width, depth, heads, pool, positions, dropout=dropout,
               drop_path=drop_path, stem=tuple(stem), norm_group=norm_group, remat=remat,
               dtype=dtype)
