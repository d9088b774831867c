"""RegNetX and RegNetY (arXiv 2003.13678), as torchvision builds them.

The authors' x_400mf, y_800mf and y_8gf, such as timm's `regnetx_004`, are of other widths than
torchvision's, which are `regnetx_004_tv`, `regnety_008_tv` and `regnety_080_tv` in timm.
"""

from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from imgcls_jax.layers.conv import Conv
from imgcls_jax.layers.drop import DropPath
from imgcls_jax.layers.inverted_residual import round_channels
from imgcls_jax.layers.norm import BatchNorm
from imgcls_jax.layers.relu import relu
from imgcls_jax.layers.squeeze_excite import SqueezeExcite
from imgcls_jax.models import MODELS
from imgcls_jax.models._variants import takes
from imgcls_jax.registry import BelowOne, Count
from imgcls_jax.types import Layout

CONVS = ("conv1", "conv2", "conv3", "shortcut_conv")
NORMS = ("norm1", "norm2", "norm3", "shortcut_norm")
GATE = ("squeeze_excite/reduce", "squeeze_excite/expand")


def _blocks(name: Callable[[int, int], str], convs, norms, gate) -> tuple:
    """The rename of all parts of a block. name: (stage from 1, block from 0) -> what comes before
    the names of CONVS, NORMS and GATE there."""
    parts: Mapping[str, str] = dict(zip((*CONVS, *NORMS, *GATE), (*convs, *norms, *gate),
                                        strict=True))
    return (rf"stage(\d)_block(\d+)/({'|'.join(parts)})",
            lambda match: f"{name(int(match[1]), int(match[2]))}.{parts[match[3]]}")


TORCHVISION = Layout("torch", (  # torchvision/models/regnet.py
    (r"stem_conv", r"stem.0"), (r"stem_norm", r"stem.1"),
    _blocks(lambda stage, block: f"trunk_output.block{stage}.block{stage}-{block}",
            ("f.a.0", "f.b.0", "f.c.0", "proj.0"), ("f.a.1", "f.b.1", "f.c.1", "proj.1"),
            ("f.se.fc1", "f.se.fc2")),
    (r"head", r"fc")))
TIMM = Layout("torch", (  # timm/models/regnet.py
    (r"stem_conv", r"stem.conv"), (r"stem_norm", r"stem.bn"),
    _blocks(lambda stage, block: f"s{stage}.b{block + 1}",
            ("conv1.conv", "conv2.conv", "conv3.conv", "downsample.conv"),
            ("conv1.bn", "conv2.bn", "conv3.bn", "downsample.bn"), ("se.fc1", "se.fc2")),
    (r"head", r"head.fc")))


def _transformers(last: int) -> Layout:
    """transformers/models/regnet; last: the number of a block's last convolution."""
    places = "layer.0", "layer.1", f"layer.{last}", "shortcut"
    return Layout("torch", (
        (r"stem_conv", r"regnet.embedder.embedder.convolution"),
        (r"stem_norm", r"regnet.embedder.embedder.normalization"),
        _blocks(lambda stage, block: f"regnet.encoder.stages.{stage - 1}.layers.{block}",
                [f"{place}.convolution" for place in places],
                [f"{place}.normalization" for place in places],
                ("layer.2.attention.0", "layer.2.attention.2")),
        (r"head", r"classifier.1")), older=((r"(?:embedder|encoder)\..*", r"regnet.\g<0>"),))


def _facts(last: int) -> dict:
    return {"image_size": 224, "head": "head", "paper": "arXiv 2003.13678",
            "layouts": {"torchvision": TORCHVISION, "timm": TIMM,
                        "transformers": _transformers(last)}}


X, Y = _facts(2), _facts(3)


class Block(nn.Module):
    """Residual block, f[B,H,W,C] -> f[B,H/stride,W/stride,features]: 1x1, 3x3 in groups, 1x1, all
    as wide as the output.

    group_width: channels of each group. gated: squeeze and excitation after the 3x3, with a quarter
      of the input's channels in between. drop_path: rate at which the block of an example is
      skipped in training.
    """

    features: int
    group_width: int
    stride: int
    gated: bool
    drop_path: float
    norm_group: int | None
    zero_init: bool
    dtype: Any

    @nn.compact
    def __call__(self, x, train: bool):
        y = _conv(self, self.features, (1, 1), name="conv1")(x)
        y = nn.relu(_norm(self, "norm1")(y, train))
        y = _conv(self, self.features, (3, 3), self.stride, self.features // self.group_width,
                  name="conv2")(y)
        y = nn.relu(_norm(self, "norm2")(y, train))
        if self.gated:
            y = SqueezeExcite(round(x.shape[-1] / 4), dtype=self.dtype, name="squeeze_excite")(y)
        y = _conv(self, self.features, (1, 1), name="conv3")(y)
        y = _norm(self, "norm3", zero=self.zero_init)(y, train)
        y = DropPath(self.drop_path, name="drop_path")(y, train)
        if self.stride > 1 or x.shape[-1] != self.features:
            x = _conv(self, self.features, (1, 1), self.stride, name="shortcut_conv")(x)
            x = _norm(self, "shortcut_norm")(x, train)
        return relu(x + y)


class RegNet(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or pooled features where num_classes is 0.

    stages: (blocks, width, group width) of each; each halves the size. `plan` makes them.
    gated: squeeze and excitation in each block, the Y of RegNetY.
    norm_group: examples per BatchNorm statistic, None for the whole batch.
    zero_init: start each block as the identity (arXiv 1706.02677, section 5.1).
    drop_path: stochastic depth of the last block; the rate grows linearly from 0 at the first.
    remat: compute the inside of a block again in the backward pass instead of keeping it.
    """

    num_classes: int
    stages: tuple[tuple[int, int, int], ...]
    gated: bool = False
    norm_group: int | None = None
    zero_init: bool = False
    drop_path: float = 0.0
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = _conv(self, 32, (3, 3), 2, name="stem_conv")(x)
        x = nn.relu(_norm(self, "stem_norm")(x, train))
        kind = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        index, last = 0, max(sum(blocks for blocks, _, _ in self.stages) - 1, 1)
        for i, (blocks, width, group_width) in enumerate(self.stages, 1):
            for j in range(blocks):
                block = kind(width, group_width, 1 if j else 2, self.gated,
                             self.drop_path * index / last, self.norm_group, self.zero_init,
                             self.dtype, name=f"stage{i}_block{j}")
                x, index = block(x, train), index + 1
        wide = jnp.promote_types(self.dtype, jnp.float32)
        x = x.mean((1, 2), dtype=wide)
        if not self.num_classes:
            return x
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.01), dtype=wide,
                        param_dtype=wide, name="head")(x)


def plan(depth: int, initial: int, slope: float, step: float, group_width: int):
    """The stages of a RegNet of `depth` blocks (section 3.3 of the paper).

    The width of block j would be initial + slope * j; it becomes the nearest initial * step^n and
    then a multiple of 8. Blocks of equal width are a stage. Widths are then made multiples of the
    group width as torchvision does: never more than a tenth less.
    """
    powers = np.rint(np.log1p(slope / initial * np.arange(depth)) / np.log(step))
    widths = (np.rint(initial * step**powers / 8) * 8).astype(int).tolist()
    stages = []
    for width, blocks in groupby(widths):
        group = min(group_width, width)
        stages.append((len(list(blocks)), round_channels(width, group), group))
    return tuple(stages)


def _conv(module, features, kernel_size, stride=1, groups=1, *, name):
    init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    return Conv(features, kernel_size, stride, groups=groups, kernel_init=init, dtype=module.dtype,
                factored=True, name=name)


def _norm(module, name, zero=False):
    init = nn.initializers.zeros if zero else nn.initializers.ones
    return BatchNorm(module.norm_group, scale_init=init, dtype=module.dtype, name=name)


def _options(num_classes: int, *, norm_group: Count | None = None, zero_init: bool = False,
             drop_path: BelowOne = 0.0, remat: bool = False, dtype: str = "float32") -> nn.Module:
    """The signature of every variant."""


@MODELS.register(params=5_495_976, **X)
@takes(_options)
def regnet_x_400mf(num_classes, **options):
    return RegNet(num_classes, plan(22, 24, 24.48, 2.54, 16), **options)


@MODELS.register(params=7_259_656, **X)
@takes(_options)
def regnet_x_800mf(num_classes, **options):
    return RegNet(num_classes, plan(16, 56, 35.73, 2.28, 16), **options)


@MODELS.register(params=9_190_136, **X)
@takes(_options)
def regnet_x_1_6gf(num_classes, **options):
    return RegNet(num_classes, plan(18, 80, 34.01, 2.25, 24), **options)


@MODELS.register(params=15_296_552, **X)
@takes(_options)
def regnet_x_3_2gf(num_classes, **options):
    return RegNet(num_classes, plan(25, 88, 26.31, 2.25, 48), **options)


@MODELS.register(params=39_572_648, **X)
@takes(_options)
def regnet_x_8gf(num_classes, **options):
    return RegNet(num_classes, plan(23, 80, 49.56, 2.88, 120), **options)


@MODELS.register(params=54_278_536, **X)
@takes(_options)
def regnet_x_16gf(num_classes, **options):
    return RegNet(num_classes, plan(22, 216, 55.59, 2.1, 128), **options)


@MODELS.register(params=107_811_560, **X)
@takes(_options)
def regnet_x_32gf(num_classes, **options):
    return RegNet(num_classes, plan(23, 320, 69.86, 2.0, 168), **options)


@MODELS.register(params=4_344_144, **Y)
@takes(_options)
def regnet_y_400mf(num_classes, **options):
    return RegNet(num_classes, plan(16, 48, 27.89, 2.09, 8), True, **options)


@MODELS.register(params=6_432_512, **Y)
@takes(_options)
def regnet_y_800mf(num_classes, **options):
    return RegNet(num_classes, plan(14, 56, 38.84, 2.4, 16), True, **options)


@MODELS.register(params=11_202_430, **Y)
@takes(_options)
def regnet_y_1_6gf(num_classes, **options):
    return RegNet(num_classes, plan(27, 48, 20.71, 2.65, 24), True, **options)


@MODELS.register(params=19_436_338, **Y)
@takes(_options)
def regnet_y_3_2gf(num_classes, **options):
    return RegNet(num_classes, plan(21, 80, 42.63, 2.66, 24), True, **options)


@MODELS.register(params=39_381_472, **Y)
@takes(_options)
def regnet_y_8gf(num_classes, **options):
    return RegNet(num_classes, plan(17, 192, 76.82, 2.19, 56), True, **options)


@MODELS.register(params=83_590_140, **Y)
@takes(_options)
def regnet_y_16gf(num_classes, **options):
    return RegNet(num_classes, plan(18, 200, 106.23, 2.48, 112), True, **options)


@MODELS.register(params=145_046_770, **Y)
@takes(_options)
def regnet_y_32gf(num_classes, **options):
    return RegNet(num_classes, plan(20, 232, 115.89, 2.53, 232), True, **options)


@MODELS.register(params=644_812_894, **Y)
@takes(_options)
def regnet_y_128gf(num_classes, **options):
    return RegNet(num_classes, plan(27, 456, 160.83, 2.52, 264), True, **options)
