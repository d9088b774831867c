"""ShuffleNetV2 (arXiv 1807.11164), as torchvision builds it."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from imgcls_jax.layers.conv import Conv
from imgcls_jax.layers.norm import BatchNorm
from imgcls_jax.layers.pool import max_pool
from imgcls_jax.models import MODELS
from imgcls_jax.models._variants import takes
from imgcls_jax.registry import Count
from imgcls_jax.types import Layout

BLOCKS = (4, 8, 4)  # of the stages 2 to 4
TORCHVISION = Layout("torch", (  # torchvision/models/shufflenetv2.py
    (r"(stem|last)_(conv|norm)", lambda match: (
        f"{'conv1' if match[1] == 'stem' else 'conv5'}.{int(match[2] == 'norm')}")),
    *((rf"stage(\d)_block(\d+)/{ours}_{leaf}", rf"stage\1.\2.{branch}.{place + i}")
      for ours, branch, place in (("shortcut_depthwise", "branch1", 0),
                                  ("shortcut_project", "branch1", 2), ("expand", "branch2", 0),
                                  ("depthwise", "branch2", 3), ("project", "branch2", 5))
      for i, leaf in enumerate(("conv", "norm"))),
    (r"head", r"fc")))
IMAGENET = {"image_size": 224, "head": "head", "paper": "arXiv 1807.11164",
            "layouts": {"torchvision": TORCHVISION}}
# torch's initial range: +-1/sqrt(inputs).
INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Block(nn.Module):
    """Half of the channels come from a branch, half from the input (figure 3 of the paper):
    f[B,H,W,C] -> f[B,H/stride,W/stride,features].

    At stride 1 the branch takes the second half of the input's channels, and the first half stays
    as it is. At stride 2 both halves are made from the whole input.
    """

    features: int
    stride: int
    norm_group: int | None
    dtype: Any

    @nn.compact
    def __call__(self, x, train: bool):
        def unit(x, size, name, stride=1):
            depthwise = size > 1
            x = Conv(x.shape[-1] if depthwise else self.features // 2, (size, size), stride,
                     groups=x.shape[-1] if depthwise else 1, kernel_init=INIT, dtype=self.dtype,
                     name=f"{name}_conv")(x)
            x = BatchNorm(self.norm_group, dtype=self.dtype, name=f"{name}_norm")(x, train)
            return x if depthwise else nn.relu(x)

        if self.stride == 1:
            kept, x = jnp.split(x, 2, -1)
        else:
            kept = unit(x, 3, "shortcut_depthwise", self.stride)
            kept = unit(kept, 1, "shortcut_project")
        x = unit(x, 1, "expand")
        x = unit(unit(x, 3, "depthwise", self.stride), 1, "project")
        # Channels of both halves alternate, so that the next block's branch gets some of each.
        return jnp.stack((kept, x), -1).reshape(*x.shape[:3], self.features)


class ShuffleNetV2(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or pooled features where num_classes is 0.

    widths: channels of the stages 2 to 4; last: of the last convolution. blocks: of each stage.
    norm_group: examples per BatchNorm statistic, None for the whole batch.
    remat: compute each block again in the backward pass, to save memory.
    """

    num_classes: int
    widths: tuple[int, ...]
    last: int = 1024
    blocks: tuple[int, ...] = BLOCKS
    norm_group: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        norm = functools.partial(BatchNorm, self.norm_group, dtype=self.dtype)
        x = Conv(24, (3, 3), 2, kernel_init=INIT, dtype=self.dtype, name="stem_conv")(x)
        pool = functools.partial(max_pool, size=3, stride=2, padding=1)
        x = norm(name="stem_norm")(x, train, pool)
        kind = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        for i, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True), 2):
            for j in range(blocks):
                x = kind(width, 1 if j else 2, self.norm_group, self.dtype,
                         name=f"stage{i}_block{j}")(x, train)
        x = Conv(self.last, (1, 1), kernel_init=INIT, dtype=self.dtype, factored=True,
                 name="last_conv")(x)
        x = nn.relu(norm(name="last_norm")(x, train))
        wide = jnp.promote_types(self.dtype, jnp.float32)
        x = x.mean((1, 2), dtype=wide)
        if not self.num_classes:
            return x
        return nn.Dense(self.num_classes, kernel_init=INIT, dtype=wide, param_dtype=wide,
                        name="head")(x)


def _options(num_classes: int, *, norm_group: Count | None = None, remat: bool = False,
             dtype: str = "float32") -> nn.Module:
    """The signature of every variant."""


@MODELS.register(params=1_366_792, **IMAGENET)
@takes(_options)
def shufflenet_v2_x0_5(num_classes, **options):
    return ShuffleNetV2(num_classes, (48, 96, 192), **options)


@MODELS.register(params=2_278_604, **IMAGENET)
@takes(_options)
def shufflenet_v2_x1_0(num_classes, **options):
    return ShuffleNetV2(num_classes, (116, 232, 464), **options)


@MODELS.register(params=3_503_624, **IMAGENET)
@takes(_options)
def shufflenet_v2_x1_5(num_classes, **options):
    return ShuffleNetV2(num_classes, (176, 352, 704), **options)


@MODELS.register(params=7_393_996, **IMAGENET)
@takes(_options)
def shufflenet_v2_x2_0(num_classes, **options):
    return ShuffleNetV2(num_classes, (244, 488, 976), 2048, **options)
