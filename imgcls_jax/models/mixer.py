"""MLP-Mixer (arXiv 2105.01601), as its authors and timm build it."""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from imgcls_jax.layers.drop import DropPath
from imgcls_jax.layers.matmul import dense
from imgcls_jax.layers.patches import Patches
from imgcls_jax.models import MODELS
from imgcls_jax.models._variants import takes
from imgcls_jax.models._vit_names import big_vision
from imgcls_jax.registry import BelowOne, Count
from imgcls_jax.types import Layout

TIMM = Layout("torch", (  # timm/models/mlp_mixer.py
    (r"patches", r"stem.proj"),
    (r"block(\d+)/norm(\d)", r"blocks.\1.norm\2"),
    (r"block(\d+)/(tokens|channels)/hidden", r"blocks.\1.mlp_\2.fc1"),
    (r"block(\d+)/(tokens|channels)/out", r"blocks.\1.mlp_\2.fc2"),
    (r"norm", r"norm"),
    (r"head", r"head")), patches=r"patches/kernel")
# google-research/vision_transformer (models_mixer.py) and big_vision (mlp_mixer.py); the GELU is
# the tanh form.
NPZ = big_vision((
    (r"patches", r"stem"),
    (r"block(\d+)/norm1", r"MixerBlock_\1/LayerNorm_0"),
    (r"block(\d+)/norm2", r"MixerBlock_\1/LayerNorm_1"),
    (r"block(\d+)/(token|channel)s/hidden", r"MixerBlock_\1/\2_mixing/Dense_0"),
    (r"block(\d+)/(token|channel)s/out", r"MixerBlock_\1/\2_mixing/Dense_1"),
    (r"norm", r"pre_head_layer_norm"),
    (r"head", r"head")), patches=r"patches/kernel",
    tells=((r"(.*/)?pre_head_layer_norm/scale", "model", {"gelu": "tanh"}),))
IMAGENET = {"image_size": 224, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "head": "head",
            "paper": "arXiv 2105.01601", "layouts": {"timm": TIMM, "npz": NPZ}}


class Mlp(nn.Module):
    """Dense, GELU, dense, with dropout after each dense layer: f[...,D] -> f[...,D]."""

    hidden: int
    gelu: Literal["exact", "tanh"]
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x, train: bool):
        y = nn.gelu(_dense(self, self.hidden, "hidden")(x), approximate=self.gelu == "tanh")
        y = nn.Dropout(self.dropout, name="dropout1", deterministic=not train)(y)
        y = _dense(self, x.shape[-1], "out")(y)
        return nn.Dropout(self.dropout, name="dropout2", deterministic=not train)(y)


class Block(nn.Module):
    """A perceptron over the tokens of each channel, then one over the channels of each token, each
    with a norm before and a residual sum after: f[B,N,D] -> f[B,N,D].

    dropout: of the units of a branch. drop_path: of the whole branch of an example.
    """

    tokens: int
    channels: int
    gelu: Literal["exact", "tanh"]
    dropout: float
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x, train: bool):
        def mlp(hidden, name):
            return Mlp(hidden, self.gelu, self.dropout, self.dtype, name=name)

        y = mlp(self.tokens, "tokens")(_norm(self, "norm1")(x).swapaxes(1, 2), train)
        x = x + DropPath(self.drop_path, name="drop_path1")(y.swapaxes(1, 2), train)
        y = mlp(self.channels, "channels")(_norm(self, "norm2")(x), train)
        return x + DropPath(self.drop_path, name="drop_path2")(y, train)


class Mixer(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or pooled features where num_classes is 0.

    tokens, channels: hidden units of the two perceptrons of a block. The first has a weight per
      token: variables for one image size do not fit another.
    gelu: exact as in timm, or the tanh form of the authors' JAX code.
    drop_path: stochastic depth of the last block; the rate grows linearly from 0 at the first.
    head_bias: initial bias, such as -6.9 for sigmoid losses; the head's kernel starts at zero.
    remat: compute the inside of a block again in the backward pass.

    ConfigError if the patch size does not divide the image.
    """

    num_classes: int
    patch_size: int
    width: int
    depth: int
    tokens: int
    channels: int
    gelu: Literal["exact", "tanh"] = "exact"
    dropout: float = 0.0
    drop_path: float = 0.0
    head_bias: float = 0.0
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = Patches(self.width, self.patch_size, self.dtype, name="patches")(x)
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        for i in range(self.depth):
            rate = self.drop_path * i / max(self.depth - 1, 1)
            x = block(self.tokens, self.channels, self.gelu, self.dropout, rate, self.dtype,
                      name=f"block{i}")(x, train)
        wide = _wide(self)
        x = _norm(self, "norm")(x).mean(1, dtype=wide)
        if not self.num_classes:
            return x
        return nn.Dense(self.num_classes, dtype=wide, param_dtype=wide, name="head",
                        kernel_init=nn.initializers.zeros,
                        bias_init=nn.initializers.constant(self.head_bias))(x)


def _wide(module):
    return jnp.promote_types(module.dtype, jnp.float32)


def _norm(module, name):
    return nn.LayerNorm(1e-6, module.dtype, _wide(module), name=name)


def _dense(module, features, name):
    return dense(features, dtype=module.dtype, name=name)


def _options(num_classes: int, *, gelu: Literal["exact", "tanh"] = "exact", dropout: BelowOne = 0.0,
             drop_path: BelowOne = 0.0, head_bias: float = 0.0, remat: bool = False,
             dtype: str = "float32") -> nn.Module:
    """The signature of every variant."""


@MODELS.register(params=19_104_624, **IMAGENET)
@takes(_options)
def mixer_s32(num_classes, **options):
    return Mixer(num_classes, 32, 512, 8, 256, 2048, **options)


@MODELS.register(params=18_528_264, **IMAGENET)
@takes(_options)
def mixer_s16(num_classes, **options):
    return Mixer(num_classes, 16, 512, 8, 256, 2048, **options)


@MODELS.register(params=60_293_428, **IMAGENET)
@takes(_options)
def mixer_b32(num_classes, **options):
    return Mixer(num_classes, 32, 768, 12, 384, 3072, **options)


@MODELS.register(params=59_880_472, **IMAGENET)
@takes(_options)
def mixer_b16(num_classes, **options):
    return Mixer(num_classes, 16, 768, 12, 384, 3072, **options)


@MODELS.register(params=206_939_264, **IMAGENET)
@takes(_options)
def mixer_l32(num_classes, **options):
    return Mixer(num_classes, 32, 1024, 24, 512, 4096, **options)


@MODELS.register(params=208_196_168, **IMAGENET)
@takes(_options)
def mixer_l16(num_classes, **options):
    return Mixer(num_classes, 16, 1024, 24, 512, 4096, **options)


@MODELS.register(image_size=32, classes=10, mean=(0.4914, 0.4822, 0.4465),
                 std=(0.2470, 0.2435, 0.2616), params=851_082, head="head",
                 paper="arXiv 2105.01601", layouts={"timm": TIMM})
def mixer_mini(num_classes: int, *, patch_size: Count = 4, width: Count = 128, depth: int = 6,
               tokens: Count = 64, channels: Count = 512, dropout: BelowOne = 0.0,
               drop_path: BelowOne = 0.0, remat: bool = False,
               dtype: str = "float32") -> nn.Module:
    """For images of 28 to 32 pixels."""
    return Mixer(num_classes, patch_size, width, depth, tokens, channels, dropout=dropout,
                 drop_path=drop_path, remat=remat, dtype=dtype)
