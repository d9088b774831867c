"""ResNet: v1.5 for ImageNet, as torchvision builds it, and the paper's members for CIFAR."""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from imgcls_jax.layers.conv import Conv
from imgcls_jax.layers.norm import BatchNorm
from imgcls_jax.models import MODELS
from imgcls_jax.types import Layout

PAPER = "arXiv 1512.03385"
TORCH = Layout("torch", (  # torchvision/models/resnet.py; timm's resnet.py has the same names
    (r"stem_conv", r"conv1"),
    (r"stem_norm", r"bn1"),
    (r"stage(\d)_block(\d+)/conv(\d)", r"layer\1.\2.conv\3"),
    (r"stage(\d)_block(\d+)/norm(\d)", r"layer\1.\2.bn\3"),
    (r"stage(\d)_block(\d+)/shortcut_conv", r"layer\1.\2.downsample.0"),
    (r"stage(\d)_block(\d+)/shortcut_norm", r"layer\1.\2.downsample.1"),
    (r"head", r"fc")))
IMAGENET = {"image_size": 224, "head": "head", "paper": PAPER,
            "layouts": {"torchvision": TORCH, "timm": TORCH}}
CIFAR = {"image_size": 32, "classes": 10, "mean": (0.4914, 0.4822, 0.4465),
         "std": (0.2470, 0.2435, 0.2616), "head": "head", "paper": PAPER}


class Block(nn.Module):
    """Residual block, f[B,H,W,C] -> f[B,H/stride,W/stride,D].

    bottleneck: 1x1, 3x3, 1x1 with D = 4 * features and the stride in the 3x3 (v1.5); otherwise
      3x3, 3x3 with D = features.
    shortcut: where shapes differ, a 1x1 convolution ("projection", the paper's option B) or
      every stride-th pixel and zeros for the new channels ("pad", option A).
    """

    features: int
    stride: int
    bottleneck: bool
    shortcut: Literal["projection", "pad"]
    norm_group: int | None
    zero_init: bool
    dtype: Any

    @nn.compact
    def __call__(self, x, train: bool):
        if self.bottleneck:
            plan = (((1, 1), 1, 1), ((3, 3), self.stride, 1), ((1, 1), 1, 4))
        else:
            plan = (((3, 3), self.stride, 1), ((3, 3), 1, 1))
        y = x
        for i, (kernel_size, stride, factor) in enumerate(plan, 1):
            last = i == len(plan)
            y = _conv(self, self.features * factor, kernel_size, stride, name=f"conv{i}")(y)
            y = _norm(self, zero=last and self.zero_init, name=f"norm{i}")(y, train)
            y = y if last else nn.relu(y)
        if x.shape != y.shape and self.shortcut == "projection":
            x = _conv(self, y.shape[-1], (1, 1), self.stride, name="shortcut_conv")(x)
            x = _norm(self, name="shortcut_norm")(x, train)
        elif x.shape != y.shape:
            x = x[:, ::self.stride, ::self.stride]
            new = y.shape[-1] - x.shape[-1]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or pooled features where num_classes is 0.

    blocks: per stage; each stage after the first halves the size and doubles the width.
    stem: 7x7 stride 2 and max pooling ("imagenet"), or one 3x3 at full size ("cifar").
    norm_group: examples per BatchNorm statistic, None for the whole batch.
    zero_init: start each block as the identity (arXiv 1706.02677, section 5.1).
    """

    num_classes: int
    blocks: tuple[int, ...]
    bottleneck: bool = False
    width: int = 64
    stem: Literal["imagenet", "cifar"] = "imagenet"
    shortcut: Literal["projection", "pad"] = "projection"
    norm_group: int | None = None
    zero_init: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        imagenet = self.stem == "imagenet"
        kernel_size, stride = ((7, 7), 2) if imagenet else ((3, 3), 1)
        x = _conv(self, self.width, kernel_size, stride, name="stem_conv")(x)
        x = nn.relu(_norm(self, name="stem_norm")(x, train))
        if imagenet:
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for i, count in enumerate(self.blocks):
            for j in range(count):
                x = Block(self.width * 2**i, 2 if i and not j else 1, self.bottleneck,
                          self.shortcut, self.norm_group, self.zero_init, self.dtype,
                          name=f"stage{i + 1}_block{j}")(x, train)
        wide = jnp.promote_types(self.dtype, jnp.float32)
        x = x.mean((1, 2), dtype=wide)
        if not self.num_classes:
            return x
        # torch's initial range of a dense layer: +-1/sqrt(inputs).
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        return nn.Dense(self.num_classes, kernel_init=init, dtype=wide, param_dtype=wide,
                        name="head")(x)


def _conv(module, features, kernel_size, stride, name):
    init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    return Conv(features, kernel_size, stride, kernel_init=init, dtype=module.dtype, name=name)


def _norm(module, name, zero=False):
    init = nn.initializers.zeros if zero else nn.initializers.ones
    return BatchNorm(module.norm_group, scale_init=init, dtype=module.dtype, name=name)


@MODELS.register(params=11_689_512, **IMAGENET)
def resnet18(num_classes: int, *, width: int = 64, norm_group: int | None = None,
             zero_init: bool = False, dtype: str = "float32") -> nn.Module:
    return ResNet(num_classes, (2, 2, 2, 2), False, width, norm_group=norm_group,
                  zero_init=zero_init, dtype=dtype)


@MODELS.register(params=21_797_672, **IMAGENET)
def resnet34(num_classes: int, *, width: int = 64, norm_group: int | None = None,
             zero_init: bool = False, dtype: str = "float32") -> nn.Module:
    return ResNet(num_classes, (3, 4, 6, 3), False, width, norm_group=norm_group,
                  zero_init=zero_init, dtype=dtype)


@MODELS.register(params=25_557_032, **IMAGENET)
def resnet50(num_classes: int, *, width: int = 64, norm_group: int | None = None,
             zero_init: bool = False, dtype: str = "float32") -> nn.Module:
    return ResNet(num_classes, (3, 4, 6, 3), True, width, norm_group=norm_group,
                  zero_init=zero_init, dtype=dtype)


@MODELS.register(params=44_549_160, **IMAGENET)
def resnet101(num_classes: int, *, width: int = 64, norm_group: int | None = None,
              zero_init: bool = False, dtype: str = "float32") -> nn.Module:
    return ResNet(num_classes, (3, 4, 23, 3), True, width, norm_group=norm_group,
                  zero_init=zero_init, dtype=dtype)


@MODELS.register(params=60_192_808, **IMAGENET)
def resnet152(num_classes: int, *, width: int = 64, norm_group: int | None = None,
              zero_init: bool = False, dtype: str = "float32") -> nn.Module:
    return ResNet(num_classes, (3, 8, 36, 3), True, width, norm_group=norm_group,
                  zero_init=zero_init, dtype=dtype)


@MODELS.register(params=269_722, **CIFAR)
def resnet20(num_classes: int, *, width: int = 16, norm_group: int | None = None,
             zero_init: bool = False, dtype: str = "float32") -> nn.Module:
    """For images of 8 to 32 pixels (section 4.2 of the paper)."""
    return ResNet(num_classes, (3, 3, 3), False, width, "cifar", "pad", norm_group, zero_init,
                  dtype)


@MODELS.register(params=853_018, **CIFAR)
def resnet56(num_classes: int, *, width: int = 16, norm_group: int | None = None,
             zero_init: bool = False, dtype: str = "float32") -> nn.Module:
    """For images of 8 to 32 pixels (section 4.2 of the paper)."""
    return ResNet(num_classes, (9, 9, 9), False, width, "cifar", "pad", norm_group, zero_init,
                  dtype)


@MODELS.register(params=1_727_962, **CIFAR)
def resnet110(num_classes: int, *, width: int = 16, norm_group: int | None = None,
              zero_init: bool = False, dtype: str = "float32") -> nn.Module:
    """For images of 8 to 32 pixels (section 4.2 of the paper)."""
    return ResNet(num_classes, (18, 18, 18), False, width, "cifar", "pad", norm_group, zero_init,
                  dtype)
