"""ResNet v1 and v2 of keras.applications, under the names keras_resnet50, keras_resnet50v2 and so
on: the paper's first version, with the stride in the first 1x1 convolution, and the one with
pre-activation (arXiv 1603.05027). Some of their convolutions have biases."""

import functools
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from imgcls_jax.layers.conv import Conv
from imgcls_jax.layers.norm import BatchNorm
from imgcls_jax.layers.pool import max_pool
from imgcls_jax.models import MODELS
from imgcls_jax.models._variants import takes
from imgcls_jax.registry import Count
from imgcls_jax.types import Layout

R50, R101, R152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
# Version 1 has the weights of caffe: images of 0 to 255 minus a mean, not divided. Its files expect
# BGR; on reading, the channels of the first kernel are reversed.
CAFFE = {"mean": (123.68 / 255, 116.779 / 255, 103.939 / 255), "std": (1 / 255,) * 3}
V2 = {"mean": (0.5,) * 3, "std": (0.5,) * 3}


class Block(nn.Module):
    """Bottleneck of version 1, f[B,H,W,C] -> f[B,H/stride,W/stride,4*features]: 1x1 with the
    stride, 3x3, 1x1, with biases.

    projection: the shortcut is a 1x1 convolution, as in the first block of a stage.
    """

    features: int
    stride: int
    projection: bool
    norm_group: int | None
    dtype: Any

    @nn.compact
    def __call__(self, x, train: bool):
        conv, norm = _layers(self)
        y = x
        for i, (features, size, stride) in enumerate((
                (self.features, (1, 1), self.stride), (self.features, (3, 3), 1),
                (4 * self.features, (1, 1), 1)), 1):
            y = conv(features, size, stride, use_bias=True, name=f"conv{i}")(y)
            y = norm(name=f"norm{i}")(y, train)
            y = nn.relu(y) if i < 3 else y
        if self.projection:
            x = conv(4 * self.features, (1, 1), self.stride, use_bias=True,
                     name="shortcut_conv")(x)
            x = norm(name="shortcut_norm")(x, train)
        return nn.relu(x + y)


class BlockV2(nn.Module):
    """Bottleneck of version 2, f[B,H,W,C] -> f[B,H/stride,W/stride,4*features]: norm, ReLU and 1x1;
    norm, ReLU and 3x3 with the stride; norm, ReLU and 1x1. Only the last has a bias.

    projection: the shortcut is a 1x1 convolution, with a bias, of the normed input; otherwise
      every stride-th pixel of the input itself.
    """

    features: int
    stride: int
    projection: bool
    norm_group: int | None
    dtype: Any

    @nn.compact
    def __call__(self, x, train: bool):
        conv, norm = _layers(self)
        y = nn.relu(norm(name="norm1")(x, train))
        if self.projection:
            x = conv(4 * self.features, (1, 1), self.stride, use_bias=True,
                     name="shortcut_conv")(y)
        else:
            x = x[:, ::self.stride, ::self.stride]
        y = conv(self.features, (1, 1), name="conv1")(y)
        y = nn.relu(norm(name="norm2")(y, train))
        y = conv(self.features, (3, 3), self.stride, name="conv2")(y)
        y = nn.relu(norm(name="norm3")(y, train))
        return x + conv(4 * self.features, (1, 1), use_bias=True, name="conv3")(y)


class KerasResNet(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or pooled features where num_classes is 0.

    version: 1 strides in the first block of a stage, 2 in the last, of all stages but the fourth.
    blocks: per stage; each stage after the first doubles the width.
    norm_group: examples per BatchNorm statistic, None for the whole batch.
    remat: compute the inside of a block again in the backward pass instead of keeping it.
    """

    num_classes: int
    blocks: tuple[int, ...]
    version: Literal[1, 2] = 1
    width: int = 64
    norm_group: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        conv, norm = _layers(self)
        x = conv(self.width, (7, 7), 2, use_bias=True, name="stem_conv")(x)
        if self.version == 1:
            x = nn.relu(norm(name="stem_norm")(x, train))
        # Padded with zeros, not -inf, which matters in version 2, where values may be negative.
        x = max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, 2)
        block = Block if self.version == 1 else BlockV2
        block = nn.remat(block, static_argnums=(2,)) if self.remat else block
        for i, count in enumerate(self.blocks):
            strided = i > 0 if self.version == 1 else i + 1 < len(self.blocks)
            place = 0 if self.version == 1 else count - 1
            for j in range(count):
                x = block(self.width * 2**i, 2 if strided and j == place else 1, j == 0,
                          self.norm_group, self.dtype, name=f"stage{i + 1}_block{j}")(x, train)
        if self.version == 2:
            x = nn.relu(norm(name="norm")(x, train))
        wide = jnp.promote_types(self.dtype, jnp.float32)
        x = x.mean((1, 2), dtype=wide)
        if not self.num_classes:
            return x
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.glorot_uniform(), dtype=wide,
                        param_dtype=wide, name="head")(x)


def _layers(module):
    """(convolution, BatchNorm) with Keras' initial values, momentum and epsilon."""
    return (functools.partial(Conv, kernel_init=nn.initializers.glorot_uniform(),
                              dtype=module.dtype),
            functools.partial(BatchNorm, module.norm_group, 0.99, 1.001e-5, dtype=module.dtype))


def _facts(blocks: tuple[int, ...], version: int) -> dict:
    """What variants share (keras/src/applications/resnet.py and resnet_v2.py)."""
    def block(pattern, name):
        return (rf"stage(\d)_block(\d+)/{pattern}", lambda match: match.expand(
            f"conv{int(match[1]) + 1}_block{int(match[2]) + 1}_{name}"))

    renames = (block(r"conv(\d)", r"\3_conv"), block(r"shortcut_conv", r"0_conv"),
               (r"stem_conv", r"conv1_conv"), (r"head", r"predictions"))
    if version == 1:
        # Layers at the same distance from the output are in the order in which they were created.
        tail = ("0_conv", "3_conv", "0_bn", "3_bn"), ("3_conv", "3_bn")
        head, order, last = (), ["conv1_conv", "conv1_bn"], []
        renames += (block(r"norm(\d)", r"\3_bn"), block(r"shortcut_norm", r"0_bn"),
                    (r"stem_norm", r"conv1_bn"))
    else:
        tail = ("0_conv", "3_conv"), ("3_conv",)
        head, order, last = ("preact_bn",), ["conv1_conv"], ["post_bn"]
        renames += (block(r"norm1", r"preact_bn"), block(r"norm2", r"1_bn"),
                    block(r"norm3", r"2_bn"), (r"norm", r"post_bn"))
    for i, count in enumerate(blocks, 2):
        order += [f"conv{i}_block{j}_{part}" for j in range(1, count + 1) for part in (
            *head, "1_conv", "1_bn", "2_conv", "2_bn", *tail[j > 1])]
    layout = Layout("keras", renames, order=(*order, *last, "predictions"),
                    bgr=r"stem_conv/kernel" if version == 1 else "")
    return {"image_size": 224, "head": "head", "layouts": {"keras": layout},
            "paper": "arXiv 1512.03385" if version == 1 else "arXiv 1603.05027",
            **(CAFFE if version == 1 else V2)}


def _options(num_classes: int, *, width: Count = 64, norm_group: Count | None = None,
             remat: bool = False, dtype: str = "float32") -> nn.Module:
    """The signature of every variant."""


@MODELS.register(params=25_583_592, **_facts(R50, 1))
@takes(_options)
def keras_resnet50(num_classes, **options):
    """Keras counts 25,636,712 parameters, running statistics included."""
    return KerasResNet(num_classes, R50, **options)


@MODELS.register(params=44_601_832, **_facts(R101, 1))
@takes(_options)
def keras_resnet101(num_classes, **options):
    """Keras counts 44,707,176 parameters, running statistics included."""
    return KerasResNet(num_classes, R101, **options)


@MODELS.register(params=60_268_520, **_facts(R152, 1))
@takes(_options)
def keras_resnet152(num_classes, **options):
    """Keras counts 60,419,944 parameters, running statistics included."""
    return KerasResNet(num_classes, R152, **options)


@MODELS.register(params=25_568_360, **_facts(R50, 2))
@takes(_options)
def keras_resnet50v2(num_classes, **options):
    """Keras counts 25,613,800 parameters, running statistics included."""
    return KerasResNet(num_classes, R50, version=2, **options)


@MODELS.register(params=44_577_896, **_facts(R101, 2))
@takes(_options)
def keras_resnet101v2(num_classes, **options):
    """Keras counts 44,675,560 parameters, running statistics included."""
    return KerasResNet(num_classes, R101, version=2, **options)


@MODELS.register(params=60_236_904, **_facts(R152, 2))
@takes(_options)
def keras_resnet152v2(num_classes, **options):
    """Keras counts 60,380,648 parameters, running statistics included."""
    return KerasResNet(num_classes, R152, version=2, **options)
