"""VGG with 11 to 19 layers, with and without BatchNorm, as torchvision builds it."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from imgcls_jax.layers.conv import Conv
from imgcls_jax.layers.norm import BatchNorm
from imgcls_jax.layers.pool import adaptive_avg_pool, max_pool
from imgcls_jax.models import MODELS
from imgcls_jax.registry import BelowOne, Count
from imgcls_jax.types import Layout

PAPER = "arXiv 1409.1556"
CELLS = 7  # the map is pooled to 7x7 before the first dense layer
# Convolutions per stage: the columns A, B, D and E of the paper's table 1.
A, B, D, E = (1, 1, 2, 2, 2), (2, 2, 2, 2, 2), (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)


class VGG(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or what the head receives f[B,hidden] where
    num_classes is 0.

    depths: 3x3 convolutions per stage, each followed by a 2x2 max pooling; the width doubles
      from stage to stage up to eight times `width`.
    normalise: BatchNorm after each convolution; norm_group: examples per statistic.
    dropout: share of the units dropped after each hidden dense layer.

    ConfigError if the image is smaller than 2**len(depths) pixels.
    """

    num_classes: int
    depths: tuple[int, ...]
    normalise: bool = False
    width: int = 64
    hidden: int = 4096
    dropout: float = 0.5
    norm_group: int | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        for i, depth in enumerate(self.depths):
            for j in range(depth):
                x = Conv(self.width * 2 ** min(i, 3), use_bias=True, kernel_init=init,
                         dtype=self.dtype, name=f"stage{i + 1}_conv{j}")(x)
                if self.normalise:
                    x = BatchNorm(self.norm_group, dtype=self.dtype,
                                  name=f"stage{i + 1}_norm{j}")(x, train)
                x = nn.relu(x)
            x = max_pool(x, 2, 2)
        x = adaptive_avg_pool(x, CELLS)
        # Channels first, as torch flattens: published weights load without a permutation.
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        wide = jnp.promote_types(self.dtype, jnp.float32)
        init = nn.initializers.normal(0.01)
        for i in (1, 2):
            x = nn.relu(nn.Dense(self.hidden, kernel_init=init, dtype=self.dtype,
                                 param_dtype=wide, name=f"fc{i}")(x))
            x = nn.Dropout(self.dropout, deterministic=not train, name=f"dropout{i}")(x)
        x = x.astype(wide)
        if not self.num_classes:
            return x
        return nn.Dense(self.num_classes, kernel_init=init, dtype=wide, param_dtype=wide,
                        name="head")(x)


def _facts(depths: tuple[int, ...], normalise: bool) -> dict:
    """Facts of a variant; the number of a layer in the reference's list depends on it."""
    features, place = [], 0
    for i, depth in enumerate(depths, 1):
        for j in range(depth):
            features.append((f"stage{i}_conv{j}", f"features.{place}"))
            if normalise:
                features.append((f"stage{i}_norm{j}", f"features.{place + 1}"))
            place += 3 if normalise else 2
        place += 1
    torchvision = Layout("torch", (  # torchvision/models/vgg.py
        *features, (r"fc1", r"classifier.0"), (r"fc2", r"classifier.3"),
        (r"head", r"classifier.6")))
    timm = Layout("torch", (  # timm/models/vgg.py, whose dense layers are convolutions
        *features, (r"fc(\d)", r"pre_logits.fc\1"), (r"head", r"head.fc")), shapes=(
            (r"pre_logits\.fc1\.weight", (-1, 64 * 8, CELLS, CELLS)),
            (r"pre_logits\.fc2\.weight", (-1, 4096, 1, 1))))
    layouts = {"torchvision": torchvision, "timm": timm}
    if depths in (D, E) and not normalise:
        layouts["keras"] = _keras(depths)
    return {"image_size": 224, "head": "head", "paper": PAPER, "layouts": layouts}


def _keras(depths: tuple[int, ...]) -> Layout:
    """keras/src/applications/vgg16.py and vgg19.py: for images in BGR, flattened channels last."""
    places = [(i, j) for i, depth in enumerate(depths, 1) for j in range(depth)]
    convs = [(f"stage{i}_conv{j}", f"block{i}_conv{j + 1}") for i, j in places]
    return Layout("keras", (*convs, (r"fc(\d)", r"fc\1"), (r"head", r"predictions")),
                  order=(*(theirs for _, theirs in convs), "fc1", "fc2", "predictions"),
                  bgr=r"stage1_conv0/kernel", flattened=(r"fc1/kernel", CELLS))


@MODELS.register(params=132_863_336, **_facts(A, False))
def vgg11(num_classes: int, *, dropout: BelowOne = 0.5, dtype: str = "float32") -> nn.Module:
    return VGG(num_classes, A, dropout=dropout, dtype=dtype)


@MODELS.register(params=132_868_840, **_facts(A, True))
def vgg11_bn(num_classes: int, *, dropout: BelowOne = 0.5, norm_group: Count | None = None,
             dtype: str = "float32") -> nn.Module:
    return VGG(num_classes, A, True, dropout=dropout, norm_group=norm_group, dtype=dtype)


@MODELS.register(params=133_047_848, **_facts(B, False))
def vgg13(num_classes: int, *, dropout: BelowOne = 0.5, dtype: str = "float32") -> nn.Module:
    return VGG(num_classes, B, dropout=dropout, dtype=dtype)


@MODELS.register(params=133_053_736, **_facts(B, True))
def vgg13_bn(num_classes: int, *, dropout: BelowOne = 0.5, norm_group: Count | None = None,
             dtype: str = "float32") -> nn.Module:
    return VGG(num_classes, B, True, dropout=dropout, norm_group=norm_group, dtype=dtype)


@MODELS.register(params=138_357_544, **_facts(D, False))
def vgg16(num_classes: int, *, dropout: BelowOne = 0.5, dtype: str = "float32") -> nn.Module:
    return VGG(num_classes, D, dropout=dropout, dtype=dtype)


@MODELS.register(params=138_365_992, **_facts(D, True))
def vgg16_bn(num_classes: int, *, dropout: BelowOne = 0.5, norm_group: Count | None = None,
             dtype: str = "float32") -> nn.Module:
    return VGG(num_classes, D, True, dropout=dropout, norm_group=norm_group, dtype=dtype)


@MODELS.register(params=143_667_240, **_facts(E, False))
def vgg19(num_classes: int, *, dropout: BelowOne = 0.5, dtype: str = "float32") -> nn.Module:
    return VGG(num_classes, E, dropout=dropout, dtype=dtype)


@MODELS.register(params=143_678_248, **_facts(E, True))
def vgg19_bn(num_classes: int, *, dropout: BelowOne = 0.5, norm_group: Count | None = None,
             dtype: str = "float32") -> nn.Module:
    return VGG(num_classes, E, True, dropout=dropout, norm_group=norm_group, dtype=dtype)
