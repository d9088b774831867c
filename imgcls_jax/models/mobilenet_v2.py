"""MobileNetV2, as torchvision builds it; timm's mobilenetv2_100 is the same network."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from imgcls_jax.layers.conv import Conv
from imgcls_jax.layers.inverted_residual import InvertedResidual, round_channels
from imgcls_jax.layers.norm import BatchNorm
from imgcls_jax.models import MODELS, _mobile_names
from imgcls_jax.registry import BelowOne, Count, Positive
from imgcls_jax.types import Layout

PAPER = "arXiv 1801.04381"
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
          (6, 160, 3, 2), (6, 320, 1, 1))  # table 2: expansion, channels, blocks, first stride
PLACE = _mobile_names.place([blocks for _, _, blocks, _ in STAGES])


def _parts(stage, block):
    return ("depthwise", "project") if stage == 1 else ("expand", "depthwise", "project")


def _torchvision(stage, block, part, leaf):
    """The last convolution of a block and its norm follow the pairs and are not one of them."""
    number, norm = _parts(stage, block).index(part), int(leaf == "norm")
    inner = f"{number + norm}" if part == "project" else f"{number}.{norm}"
    return f"features.{PLACE(stage, block)}.conv.{inner}"


LAYOUTS = {
    "torchvision": Layout("torch", (  # torchvision/models/mobilenetv2.py
        *_mobile_names.renames(_torchvision),
        (r"stem_conv", r"features.0.0"), (r"stem_norm", r"features.0.1"),
        (r"last_conv", r"features.18.0"), (r"last_norm", r"features.18.1"),
        (r"head", r"classifier.1"))),
    "timm": Layout("torch", (  # timm/models/efficientnet.py
        *_mobile_names.timm(_parts), (r"last_conv", r"conv_head"), (r"last_norm", r"bn2"),
        (r"head", r"classifier")))}


class MobileNetV2(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or pooled features where num_classes is 0.

    stages: (expansion, channels, blocks, stride of the first) each.
    width: multiplies all channels, which are then rounded to eights; those of the last
      convolution only where it is above 1 (section 4.1 of the paper).
    dropout: of the pooled features. norm_group: examples per BatchNorm statistic, None for the
    whole batch. remat: compute each block again in the backward pass, to save memory.
    """

    num_classes: int
    stages: tuple[tuple[int, int, int, int], ...] = STAGES
    width: float = 1.0
    dropout: float = 0.2
    norm_group: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        conv = functools.partial(Conv, kernel_init=init, dtype=self.dtype)
        norm = functools.partial(BatchNorm, self.norm_group, dtype=self.dtype)
        kind = nn.remat(InvertedResidual, static_argnums=(2,)) if self.remat else InvertedResidual

        x = conv(round_channels(32 * self.width), (3, 3), 2, name="stem_conv")(x)
        x = nn.relu6(norm(name="stem_norm")(x, train))
        for i, (expand, features, blocks, stride) in enumerate(self.stages, 1):
            for j in range(blocks):
                block = kind(round_channels(features * self.width), expand * x.shape[-1], 3,
                             1 if j else stride, 0, nn.relu6, conv, conv, norm, dtype=self.dtype,
                             name=f"stage{i}_block{j}")
                x = block(x, train)
        x = conv(round_channels(1280 * max(1.0, self.width)), (1, 1), name="last_conv")(x)
        x = nn.relu6(norm(name="last_norm")(x, train))

        wide = jnp.promote_types(self.dtype, jnp.float32)
        x = x.mean((1, 2), dtype=wide)
        if not self.num_classes:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.01), dtype=wide,
                        param_dtype=wide, name="head")(x)


@MODELS.register(image_size=224, params=3_504_872, head="head", paper=PAPER, layouts=LAYOUTS)
def mobilenet_v2(num_classes: int, *, width: Positive = 1.0, dropout: BelowOne = 0.2,
                 norm_group: Count | None = None, remat: bool = False,
                 dtype: str = "float32") -> nn.Module:
    return MobileNetV2(num_classes, STAGES, width, dropout, norm_group, remat, dtype)
