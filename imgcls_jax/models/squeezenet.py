"""SqueezeNet 1.0 and 1.1 (arXiv 1602.07360), as torchvision builds them."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from imgcls_jax.layers.conv import Conv
from imgcls_jax.layers.pool import max_pool
from imgcls_jax.models import MODELS
from imgcls_jax.models._variants import takes
from imgcls_jax.registry import BelowOne
from imgcls_jax.types import Layout

# Channels of the fire modules 2 to 9: between them, and of each of the two expanding kernels.
WIDTHS = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))


def _facts(places: tuple[int, ...]) -> dict:
    """places: numbers of the fire modules in torchvision's sequence, from fire2 on."""
    layout = Layout("torch", (  # torchvision/models/squeezenet.py
        (r"stem", r"features.0"),
        *((rf"fire{i}/(\w+)", rf"features.{place}.\1") for i, place in enumerate(places, 2)),
        (r"head", r"classifier.1")), shapes=((r"classifier\.1\.weight", (-1, 512, 1, 1)),))
    return {"image_size": 224, "head": "head", "paper": "arXiv 1602.07360",
            "layouts": {"torchvision": layout}}


class Fire(nn.Module):
    """Fewer channels, then 1x1 and 3x3 kernels side by side: f[B,H,W,C] -> f[B,H,W,2*expanded]."""

    squeezed: int
    expanded: int
    dtype: Any

    @nn.compact
    def __call__(self, x):
        x = nn.relu(_conv(self, self.squeezed, 1, name="squeeze")(x))
        return nn.relu(jnp.concatenate((_conv(self, self.expanded, 1, name="expand1x1")(x),
                                        _conv(self, self.expanded, 3, name="expand3x3")(x)), -1))


class SqueezeNet(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or pooled features where num_classes is 0.

    The classifier is applied to each pixel of the last map; its ReLU'd values are averaged, so that
    no logit is negative.

    stem: (channels, size of the kernel) of the first convolution.
    pooled: numbers of the fire modules that a max pooling precedes, besides the one of the stem.
    widths: as WIDTHS. dropout: of the last map. remat: compute each fire module again in the
    backward pass.
    """

    num_classes: int
    stem: tuple[int, int]
    pooled: tuple[int, ...]
    widths: tuple[tuple[int, int], ...] = WIDTHS
    dropout: float = 0.5
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        features, size = self.stem
        x = nn.relu(_conv(self, features, size, 2, (0, 0), name="stem")(x))
        fire = nn.remat(Fire) if self.remat else Fire
        for i, (squeezed, expanded) in enumerate(self.widths, 2):
            if i == 2 or i in self.pooled:
                x = max_pool(x, 3, 2, ceil=True)
            x = fire(squeezed, expanded, self.dtype, name=f"fire{i}")(x)
        wide = jnp.promote_types(self.dtype, jnp.float32)
        if not self.num_classes:
            return x.mean((1, 2), dtype=wide)
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x).astype(wide)
        x = nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.01), dtype=wide,
                     param_dtype=wide, name="head")(x)
        return nn.relu(x).mean((1, 2))


def _conv(module, features, size, stride=1, padding=None, *, name):
    return Conv(features, (size, size), stride, padding, use_bias=True,
                kernel_init=nn.initializers.he_uniform(), dtype=module.dtype, name=name)


def _options(num_classes: int, *, dropout: BelowOne = 0.5, remat: bool = False,
             dtype: str = "float32") -> nn.Module:
    """The signature of both versions."""


@MODELS.register(params=1_248_424, **_facts((3, 4, 5, 7, 8, 9, 10, 12)))
@takes(_options)
def squeezenet1_0(num_classes, **options):
    return SqueezeNet(num_classes, (96, 7), (5, 9), **options)


@MODELS.register(params=1_235_496, **_facts((3, 4, 6, 7, 9, 10, 11, 12)))
@takes(_options)
def squeezenet1_1(num_classes, **options):
    """Pooled earlier and with a smaller stem: the accuracy of 1.0 for 2.4 times less work."""
    return SqueezeNet(num_classes, (64, 3), (4, 6), **options)
