"""MobileNetV3: torchvision's mobilenet_v3_*, and timm's mobilenetv3_*_100 with other BatchNorm."""

import functools
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from imgcls_jax.layers.conv import Conv
from imgcls_jax.layers.inverted_residual import InvertedResidual, round_channels
from imgcls_jax.layers.norm import BatchNorm
from imgcls_jax.models import MODELS, _mobile_names
from imgcls_jax.registry import BelowOne, Count, Positive
from imgcls_jax.types import Layout

PAPER = "arXiv 1905.02244"


class Row(NamedTuple):
    """A row of tables 1 and 2 of the paper: one block."""

    kernel: int
    expanded: int
    features: int
    gate: bool
    activation: Literal["relu", "hard_swish"]
    stride: int = 1


def _rows(kernel, expanded, features, gate, activation, stride):
    """Rows of one stage, one for each expanded width; the first has the stride."""
    return tuple(Row(kernel, width, features, gate, activation, 1 if i else stride)
                 for i, width in enumerate(expanded))


LARGE = (
    _rows(3, (16,), 16, False, "relu", 1),
    _rows(3, (64, 72), 24, False, "relu", 2),
    _rows(5, (72, 120, 120), 40, True, "relu", 2),
    _rows(3, (240, 200, 184, 184), 80, False, "hard_swish", 2),
    _rows(3, (480, 672), 112, True, "hard_swish", 1),
    _rows(5, (672, 960, 960), 160, True, "hard_swish", 2))
SMALL = (
    _rows(3, (16,), 16, True, "relu", 2),
    _rows(3, (72, 88), 24, False, "relu", 2),
    _rows(5, (96, 240, 240), 40, True, "hard_swish", 2),
    _rows(5, (120, 144), 48, True, "hard_swish", 1),
    _rows(5, (288, 576, 576), 96, True, "hard_swish", 2))


class MobileNetV3(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or the head's features where num_classes is 0.

    stages: rows of blocks. hidden: units between pooling and head.
    width: multiplies all channels and `hidden`, which are then rounded to eights.
    form: "torchvision" or "timm": settings of BatchNorm and initial values.
    dropout: of the hidden units. norm_group: examples per BatchNorm statistic, None for the whole
    batch. remat: compute each block again in the backward pass, to save memory.
    """

    num_classes: int
    stages: tuple[tuple[Row, ...], ...]
    hidden: int
    width: float = 1.0
    form: Literal["torchvision", "timm"] = "torchvision"
    dropout: float = 0.2
    norm_group: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        timm = self.form == "timm"
        fan_out, fan_in = (nn.initializers.variance_scaling(2.0, mode, "normal")
                           for mode in ("fan_out", "fan_in"))
        conv = functools.partial(Conv, kernel_init=fan_out, dtype=self.dtype)
        # timm counts one channel's outputs in a depthwise kernel's fan-out, torch those of all.
        depthwise = functools.partial(conv, kernel_init=fan_in if timm else fan_out)
        norm = functools.partial(BatchNorm, self.norm_group, 0.9 if timm else 0.99,
                                 1e-5 if timm else 1e-3, dtype=self.dtype)
        kind = nn.remat(InvertedResidual, static_argnums=(2,)) if self.remat else InvertedResidual
        normal = nn.initializers.normal(0.01)
        range_ = nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")

        x = conv(self._scaled(16), (3, 3), 2, name="stem_conv")(x)
        x = nn.hard_swish(norm(name="stem_norm")(x, train))
        for i, rows in enumerate(self.stages, 1):
            for j, row in enumerate(rows):
                expanded = self._scaled(row.expanded)
                block = kind(self._scaled(row.features), expanded, row.kernel, row.stride,
                             round_channels(expanded // 4) if row.gate else 0,
                             getattr(nn, row.activation), conv, depthwise, norm,
                             gate=nn.hard_sigmoid, dtype=self.dtype, name=f"stage{i}_block{j}")
                x = block(x, train)
        x = conv(6 * x.shape[-1], (1, 1), name="last_conv")(x)
        x = nn.hard_swish(norm(name="last_norm")(x, train))

        wide = jnp.promote_types(self.dtype, jnp.float32)
        x = x.mean((1, 2), dtype=wide)
        x = nn.Dense(self._scaled(self.hidden), kernel_init=fan_out if timm else normal,
                     dtype=wide, param_dtype=wide, name="hidden")(x)
        x = nn.hard_swish(x)
        if not self.num_classes:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        return nn.Dense(self.num_classes, kernel_init=range_ if timm else normal, dtype=wide,
                        param_dtype=wide, name="head")(x)

    def _scaled(self, channels: int) -> int:
        return round_channels(channels * self.width)


def _layouts(stages) -> dict[str, Layout]:
    place = _mobile_names.place([len(rows) for rows in stages])
    blocks, last = sum(map(len, stages)), 6 * stages[-1][-1].features

    def parts(stage, block):
        absent = {"expand": stage == 1, "squeeze_excite": not stages[stage - 1][block].gate}
        return tuple(part for part in _mobile_names.PARTS if not absent.get(part))

    torchvision = (  # torchvision/models/mobilenetv3.py
        *_mobile_names.torchvision(parts, lambda i, j: f"features.{place(i, j)}.block"),
        (r"last_conv", f"features.{blocks + 1}.0"), (r"last_norm", f"features.{blocks + 1}.1"),
        (r"hidden", r"classifier.0"), (r"head", r"classifier.3"))
    timm = (  # timm/models/mobilenetv3.py: the last convolution is a stage there
        *_mobile_names.timm(parts), (r"last_conv", f"blocks.{len(stages)}.0.conv"),
        (r"last_norm", f"blocks.{len(stages)}.0.bn1"), (r"hidden", r"conv_head"),
        (r"head", r"classifier"))
    return {"torchvision": Layout("torch", torchvision),
            "timm": Layout("torch", timm, shapes=((r"conv_head\.weight", (-1, last, 1, 1)),))}


def _facts(stages, publisher):
    return {"image_size": 224, "head": "head", "paper": PAPER,
            "layouts": {publisher: _layouts(stages)[publisher]}}


@MODELS.register(params=5_483_032, **_facts(LARGE, "torchvision"))
def mobilenet_v3_large(num_classes: int, *, width: Positive = 1.0, dropout: BelowOne = 0.2,
                       norm_group: Count | None = None, remat: bool = False,
                       dtype: str = "float32") -> nn.Module:
    return MobileNetV3(num_classes, LARGE, 1280, width, "torchvision", dropout, norm_group, remat,
                       dtype)


@MODELS.register(params=2_542_856, **_facts(SMALL, "torchvision"))
def mobilenet_v3_small(num_classes: int, *, width: Positive = 1.0, dropout: BelowOne = 0.2,
                       norm_group: Count | None = None, remat: bool = False,
                       dtype: str = "float32") -> nn.Module:
    return MobileNetV3(num_classes, SMALL, 1024, width, "torchvision", dropout, norm_group, remat,
                       dtype)


@MODELS.register(params=5_483_032, **_facts(LARGE, "timm"))
def mobilenetv3_large_100(num_classes: int, *, dropout: BelowOne = 0.2,
                          norm_group: Count | None = None, remat: bool = False,
                          dtype: str = "float32") -> nn.Module:
    return MobileNetV3(num_classes, LARGE, 1280, 1.0, "timm", dropout, norm_group, remat, dtype)


@MODELS.register(params=2_542_856, **_facts(SMALL, "timm"))
def mobilenetv3_small_100(num_classes: int, *, dropout: BelowOne = 0.2,
                          norm_group: Count | None = None, remat: bool = False,
                          dtype: str = "float32") -> nn.Module:
    return MobileNetV3(num_classes, SMALL, 1024, 1.0, "timm", dropout, norm_group, remat, dtype)
