"""MaxViT (arXiv 2204.01697), as torchvision builds it; the authors' and timm's networks have other
paddings, scales of attention and heads."""

import functools
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from imgcls_jax.errors import ConfigError
from imgcls_jax.layers import windows
from imgcls_jax.layers.attention import SelfAttention
from imgcls_jax.layers.conv import Conv
from imgcls_jax.layers.drop import DropPath
from imgcls_jax.layers.matmul import dense
from imgcls_jax.layers.norm import BatchNorm
from imgcls_jax.layers.pool import avg_pool
from imgcls_jax.layers.squeeze_excite import SqueezeExcite
from imgcls_jax.models import MODELS
from imgcls_jax.registry import BelowOne, Count
from imgcls_jax.types import Layout

INIT = nn.initializers.normal(0.02)
gelu = functools.partial(nn.gelu, approximate=False)


def _block(name: str):
    """A rename of what is in a block; the stages are counted from 0 there."""
    return lambda match: match.expand(rf"blocks.{int(match[1]) - 1}.layers.\2.layers.{name}")


BLOCK = r"stage(\d)_block(\d+)/"
TORCHVISION = Layout("torch", (  # torchvision/models/maxvit.py
    (r"stem_conv1", r"stem.0.0"),
    (r"stem_norm", r"stem.0.1"),
    (r"stem_conv2", r"stem.1.0"),
    *((BLOCK + ours, _block(f"MBconv.{theirs}")) for ours, theirs in (
        ("convolution/shortcut", "proj.1"), ("convolution/norm", "layers.pre_norm"),
        ("convolution/expand_conv", "layers.conv_a.0"),
        ("convolution/expand_norm", "layers.conv_a.1"),
        ("convolution/depthwise_conv", "layers.conv_b.0"),
        ("convolution/depthwise_norm", "layers.conv_b.1"),
        ("convolution/squeeze_excite/reduce", "layers.squeeze_excitation.fc1"),
        ("convolution/squeeze_excite/expand", "layers.squeeze_excitation.fc2"),
        ("convolution/project", "layers.conv_c"))),
    *((BLOCK + f"(window|grid)/{ours}", _block(rf"\3_attention.{theirs}")) for ours, theirs in (
        ("norm1", "attn_layer.0"), ("attention/qkv", "attn_layer.1.to_qkv"),
        ("attention/out", "attn_layer.1.merge"),
        ("positions/table", "attn_layer.1.relative_position_bias_table"),
        ("norm2", "mlp_layer.0"), ("hidden", "mlp_layer.1"), ("out", "mlp_layer.3"))),
    (r"norm", r"classifier.2"), (r"hidden", r"classifier.3"), (r"head", r"classifier.5")),
    constants=((BLOCK + "(window|grid)/positions/table",
                _block(r"\3_attention.attn_layer.1.relative_position_index"),
                lambda: windows.relative(7).astype(np.int64)),))


class Convolution(nn.Module):
    """Inverted residual with squeeze and excitation after a norm: f[B,H,W,C] ->
    f[B,H/stride,W/stride,features]. A shortcut of another shape is averaged and projected."""

    features: int
    stride: int
    drop_path: float
    norm_group: int | None
    dtype: Any

    @nn.compact
    def __call__(self, x, train: bool):
        conv = functools.partial(Conv, kernel_init=INIT, dtype=self.dtype)
        expanded = 4 * self.features
        y = _batch_norm(self, "norm")(x, train)
        y = conv(expanded, (1, 1), factored=True, name="expand_conv")(y)
        y = gelu(_batch_norm(self, "expand_norm")(y, train))
        y = conv(expanded, (3, 3), self.stride, groups=expanded, name="depthwise_conv")(y)
        y = gelu(_batch_norm(self, "depthwise_norm")(y, train))
        y = SqueezeExcite(self.features // 4, nn.silu, kernel_init=INIT, dtype=self.dtype,
                          name="squeeze_excite")(y)
        y = conv(self.features, (1, 1), use_bias=True, name="project")(y)
        if self.stride > 1 or x.shape[-1] != self.features:
            x = avg_pool(x, 3, 2, padding=1) if self.stride == 2 else x
            x = conv(self.features, (1, 1), use_bias=True, name="shortcut")(x)
        return x + DropPath(self.drop_path, name="drop_path")(y, train)


class Attention(nn.Module):
    """Attention within the windows of a map, or within the pixels of a grid that is laid over it,
    and a perceptron of each pixel: f[B,H,W,C] -> f[B,H,W,C].

    window: pixels of a side of either; it divides H and W.
    """

    kind: Literal["window", "grid"]
    window: int
    drop_path: float
    dtype: Any

    @nn.compact
    def __call__(self, x, train: bool):
        _, height, width, channels = x.shape
        grid = self.kind == "grid"
        split, join = (windows.split_grid, windows.join_grid) if grid else (
            windows.split, windows.join)
        heads = channels // 32
        bias = windows.RelativeBias(self.window, heads, name="positions")(_wide(self))[None]
        # The published factor is that of all channels, not of those of a head.
        attention = SelfAttention(heads, self.dtype, INIT, INIT, scale=channels**-0.5,
                                  name="attention")
        y = attention(split(_layer_norm(self, "norm1")(x), self.window), score_bias=bias)
        y = join(y, height, width, self.window)
        x = x + DropPath(self.drop_path, name="drop_path1")(y, train)
        y = dense(4 * channels, kernel_init=INIT, dtype=self.dtype, name="hidden")(
            _layer_norm(self, "norm2")(x))
        y = dense(channels, kernel_init=INIT, dtype=self.dtype, name="out")(gelu(y))
        return x + DropPath(self.drop_path, name="drop_path2")(y, train)


class Block(nn.Module):
    """Convolution, attention in windows, attention in grids: see the first."""

    features: int
    stride: int
    window: int
    drop_path: float
    norm_group: int | None
    dtype: Any

    @nn.compact
    def __call__(self, x, train: bool):
        x = Convolution(self.features, self.stride, self.drop_path, self.norm_group, self.dtype,
                        name="convolution")(x, train)
        for kind in ("window", "grid"):
            x = Attention(kind, self.window, self.drop_path, self.dtype, name=kind)(x, train)
        return x


class MaxViT(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or the head's features where num_classes is 0.

    stem: channels before the first stage. blocks, widths: per stage, each of which halves the map.
    window: see Attention.
    drop_path: stochastic depth of the last block; the rate grows linearly from 0 at the first.
    norm_group: examples per BatchNorm statistic, None for the whole batch. remat: compute the
      inside of a block again in the backward pass.

    ConfigError if `window` does not divide the maps of all stages.
    """

    num_classes: int
    stem: int
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    window: int = 7
    drop_path: float = 0.0
    norm_group: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        self._check(*x.shape[1:3])
        conv = functools.partial(Conv, self.stem, kernel_init=INIT, dtype=self.dtype)
        x = conv(stride=2, name="stem_conv1")(x)
        x = conv(use_bias=True, name="stem_conv2")(gelu(_batch_norm(self, "stem_norm")(x, train)))
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        places = [(i, j) for i, count in enumerate(self.blocks, 1) for j in range(count)]
        for index, (i, j) in enumerate(places):
            rate = self.drop_path * index / max(len(places) - 1, 1)
            x = block(self.widths[i - 1], 1 if j else 2, self.window, rate, self.norm_group,
                      self.dtype, name=f"stage{i}_block{j}")(x, train)
        wide = _wide(self)
        x = nn.LayerNorm(1e-5, wide, wide, name="norm")(x.mean((1, 2), dtype=wide))
        layer = functools.partial(nn.Dense, kernel_init=INIT, dtype=wide, param_dtype=wide)
        x = jnp.tanh(layer(x.shape[-1], name="hidden")(x))
        return layer(self.num_classes, use_bias=False, name="head")(x) if self.num_classes else x

    def _check(self, height: int, width: int):
        strides = [2 ** (i + 2) for i in range(len(self.blocks))]
        if any(-(-pixels // stride) % self.window for pixels in (height, width)
               for stride in strides):
            whole = self.window * strides[-1]
            raise ConfigError(
                f"an image of {height}x{width} pixels gives maps that do not divide into "
                f"{self.window}x{self.window} windows", where=f"{height}x{width} images",
                fix=f"resize or crop to a multiple of {whole} pixels")


def _wide(module):
    return jnp.promote_types(module.dtype, jnp.float32)


def _batch_norm(module, name):
    return BatchNorm(module.norm_group, 0.99, 1e-3, dtype=module.dtype, name=name)


def _layer_norm(module, name):
    return nn.LayerNorm(1e-5, module.dtype, _wide(module), name=name)


@MODELS.register(image_size=224, params=30_919_624, head="head", paper="arXiv 2204.01697",
                 layouts={"torchvision": TORCHVISION})
def maxvit_t(num_classes: int, *, drop_path: BelowOne = 0.2, norm_group: Count | None = None,
             remat: bool = False, dtype: str = "float32") -> nn.Module:
    return MaxViT(num_classes, 64, (2, 2, 5, 2), (64, 128, 256, 512), drop_path=drop_path,
                  norm_group=norm_group, remat=remat, dtype=dtype)
