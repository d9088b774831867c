"""ConvNeXt (arXiv 2201.03545), as its authors, torchvision and timm build it."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from imgcls_jax.layers.conv import Conv
from imgcls_jax.layers.drop import DropPath
from imgcls_jax.models import MODELS
from imgcls_jax.models._variants import takes
from imgcls_jax.registry import BelowOne
from imgcls_jax.types import Layout


def _stage(name: str, shift: int = -1, factor: int = 1):
    """A rename whose `{0}` is the number of our stage, times `factor` plus `shift`."""
    return lambda match: match.expand(name.replace("{0}", str(factor * int(match[1]) + shift)))


TORCHVISION = Layout("torch", (  # torchvision/models/convnext.py
    (r"stem_conv", r"features.0.0"),
    (r"stem_norm", r"features.0.1"),
    (r"stage(\d)_norm", _stage("features.{0}.0", -2, 2)),
    (r"stage(\d)_conv", _stage("features.{0}.1", -2, 2)),
    (r"stage(\d)_block(\d+)/conv", _stage(r"features.{0}.\2.block.0", -1, 2)),
    (r"stage(\d)_block(\d+)/norm", _stage(r"features.{0}.\2.block.2", -1, 2)),
    (r"stage(\d)_block(\d+)/hidden", _stage(r"features.{0}.\2.block.3", -1, 2)),
    (r"stage(\d)_block(\d+)/out", _stage(r"features.{0}.\2.block.5", -1, 2)),
    (r"stage(\d)_block(\d+)/layer_scale", _stage(r"features.{0}.\2.layer_scale", -1, 2)),
    (r"norm", r"classifier.0"),
    (r"head", r"classifier.2")), shapes=((r".*\.layer_scale", (-1, 1, 1)),))
TIMM = Layout("torch", (  # timm/models/convnext.py
    (r"stem_conv", r"stem.0"),
    (r"stem_norm", r"stem.1"),
    (r"stage(\d)_norm", _stage("stages.{0}.downsample.0")),
    (r"stage(\d)_conv", _stage("stages.{0}.downsample.1")),
    (r"stage(\d)_block(\d+)/conv", _stage(r"stages.{0}.blocks.\2.conv_dw")),
    (r"stage(\d)_block(\d+)/norm", _stage(r"stages.{0}.blocks.\2.norm")),
    (r"stage(\d)_block(\d+)/hidden", _stage(r"stages.{0}.blocks.\2.mlp.fc1")),
    (r"stage(\d)_block(\d+)/out", _stage(r"stages.{0}.blocks.\2.mlp.fc2")),
    (r"stage(\d)_block(\d+)/layer_scale", _stage(r"stages.{0}.blocks.\2.gamma")),
    (r"stage(\d)_block(\d+)/grn", _stage(r"stages.{0}.blocks.\2.mlp.grn")),
    (r"norm", r"head.norm"),
    (r"head", r"head.fc")))


def transformers(name: str) -> Layout:
    """transformers/models/<name>; the epsilon of its last norm is 1e-12, with no visible effect."""
    return Layout("torch", (
        (r"stem_conv", rf"{name}.embeddings.patch_embeddings"),
        (r"stem_norm", rf"{name}.embeddings.layernorm"),
        (r"stage(\d)_norm", _stage(rf"{name}.encoder.stages.{{0}}.downsampling_layer.0")),
        (r"stage(\d)_conv", _stage(rf"{name}.encoder.stages.{{0}}.downsampling_layer.1")),
        (r"stage(\d)_block(\d+)/conv", _stage(rf"{name}.encoder.stages.{{0}}.layers.\2.dwconv")),
        (r"stage(\d)_block(\d+)/norm", _stage(rf"{name}.encoder.stages.{{0}}.layers.\2.layernorm")),
        (r"stage(\d)_block(\d+)/hidden", _stage(rf"{name}.encoder.stages.{{0}}.layers.\2.pwconv1")),
        (r"stage(\d)_block(\d+)/out", _stage(rf"{name}.encoder.stages.{{0}}.layers.\2.pwconv2")),
        (r"stage(\d)_block(\d+)/layer_scale",
         _stage(rf"{name}.encoder.stages.{{0}}.layers.\2.layer_scale_parameter")),
        (r"stage(\d)_block(\d+)/grn", _stage(rf"{name}.encoder.stages.{{0}}.layers.\2.grn")),
        (r"norm", rf"{name}.layernorm"),
        (r"head", r"classifier")),
        older=((r"(?:embeddings|encoder|layernorm)\..*", rf"{name}.\g<0>"),),
        shapes=((r".*\.grn\.\w+", (1, 1, 1, -1)),))


IMAGENET = {"image_size": 224, "head": "head", "paper": "arXiv 2201.03545",
            "layouts": {"torchvision": TORCHVISION, "timm": TIMM,
                        "transformers": transformers("convnext")}}
# The references truncate this normal at +-2, which is 100 deviations: no effect.
INIT = nn.initializers.normal(0.02)


class ResponseNorm(nn.Module):
    """Global response normalization (arXiv 2301.00808, section 3): f[B,H,W,C] -> f[B,H,W,C].

    Each channel is multiplied by 1 + scale * its norm over the image / the mean of those norms over
    the channels; then the bias is added. Both begin at 0, which is the identity.
    """

    dtype: Any

    @nn.compact
    def __call__(self, x):
        wide = _wide(self)
        scale = self.param("scale", nn.initializers.zeros, x.shape[-1:], wide)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], wide)
        squares = jnp.square(x.astype(wide)).sum((1, 2), keepdims=True)
        # The root of a channel that is 0 everywhere has an infinite slope.
        norms = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
        factor = 1 + scale * norms / (norms.mean(-1, keepdims=True) + 1e-6)
        return x * factor.astype(self.dtype) + bias.astype(self.dtype)


class Block(nn.Module):
    """Depthwise 7x7, LayerNorm, dense, GELU, dense: f[B,H,W,C] -> f[B,H,W,C].

    layer_scale: initial factor of each channel of the branch, None for no factor.
    grn: normalise the responses after GELU, as in ConvNeXt V2.
    drop_path: rate at which the branch of an example is dropped in training.
    """

    layer_scale: float | None
    drop_path: float
    dtype: Any
    grn: bool = False

    @nn.compact
    def __call__(self, x, train: bool):
        width = x.shape[-1]
        y = Conv(width, (7, 7), groups=width, use_bias=True, kernel_init=INIT, dtype=self.dtype,
                 name="conv")(x)
        y = _norm(self, "norm")(y)
        y = nn.gelu(_dense(self, 4 * width, "hidden")(y), approximate=False)
        if self.grn:
            y = ResponseNorm(self.dtype, name="grn")(y)
        y = _dense(self, width, "out")(y)
        if self.layer_scale is not None:
            init = nn.initializers.constant(self.layer_scale)
            y = y * self.param("layer_scale", init, (width,), _wide(self)).astype(self.dtype)
        return x + DropPath(self.drop_path, name="drop_path")(y, train)


class ConvNeXt(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or pooled, normalised features where it is 0.

    blocks, widths: per stage. Patches of 4x4 pixels enter the first stage; 2x2 pixels of one stage
      become one of the next. Pixels beyond the last whole patch are left out.
    layer_scale, grn: see Block. remat: compute the inside of a block again in the backward pass.
    drop_path: stochastic depth of the last block; the rate grows linearly from 0 at the first.
    """

    num_classes: int
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    layer_scale: float | None = 1e-6
    drop_path: float = 0.0
    remat: bool = False
    dtype: Any = jnp.float32
    grn: bool = False

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = self._patches(x, 4, self.widths[0], "stem_conv")
        x = _norm(self, "stem_norm")(x)
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        places = [(i, j) for i, count in enumerate(self.blocks, 1) for j in range(count)]
        for index, (i, j) in enumerate(places):
            if i > 1 and not j:
                x = _norm(self, f"stage{i}_norm")(x)
                x = self._patches(x, 2, self.widths[i - 1], f"stage{i}_conv")
            rate = self.drop_path * index / max(len(places) - 1, 1)
            x = block(self.layer_scale, rate, self.dtype, self.grn,
                      name=f"stage{i}_block{j}")(x, train)
        wide = _wide(self)
        x = nn.LayerNorm(1e-6, wide, wide, name="norm")(x.mean((1, 2), dtype=wide))
        if not self.num_classes:
            return x
        return nn.Dense(self.num_classes, kernel_init=INIT, dtype=wide, param_dtype=wide,
                        name="head")(x)

    def _patches(self, x, size, features, name):
        return Conv(features, (size, size), size, (0, 0), use_bias=True, kernel_init=INIT,
                    dtype=self.dtype, name=name)(x)


def _wide(module):
    return jnp.promote_types(module.dtype, jnp.float32)


def _norm(module, name):
    return nn.LayerNorm(1e-6, module.dtype, _wide(module), name=name)


def _dense(module, features, name):
    return nn.Dense(features, kernel_init=INIT, dtype=module.dtype, param_dtype=_wide(module),
                    name=name)


def _options(num_classes: int, *, drop_path: BelowOne = 0.0, layer_scale: float | None = 1e-6,
             remat: bool = False, dtype: str = "float32") -> nn.Module:
    """The signature of every variant."""


@MODELS.register(params=28_589_128, **IMAGENET)
@takes(_options, drop_path=0.1)
def convnext_tiny(num_classes, **options):
    return ConvNeXt(num_classes, (3, 3, 9, 3), (96, 192, 384, 768), **options)


@MODELS.register(params=50_223_688, **IMAGENET)
@takes(_options, drop_path=0.4)
def convnext_small(num_classes, **options):
    return ConvNeXt(num_classes, (3, 3, 27, 3), (96, 192, 384, 768), **options)


@MODELS.register(params=88_591_464, **IMAGENET)
@takes(_options, drop_path=0.5)
def convnext_base(num_classes, **options):
    return ConvNeXt(num_classes, (3, 3, 27, 3), (128, 256, 512, 1024), **options)


@MODELS.register(params=197_767_336, **IMAGENET)
@takes(_options, drop_path=0.5)
def convnext_large(num_classes, **options):
    return ConvNeXt(num_classes, (3, 3, 27, 3), (192, 384, 768, 1536), **options)
