"""DenseNet-BC for ImageNet: a layer's input is the output of all earlier layers in its block."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from imgcls_jax.layers.conv import Conv
from imgcls_jax.layers.norm import BatchNorm
from imgcls_jax.layers.pool import avg_pool, max_pool
from imgcls_jax.models import MODELS
from imgcls_jax.registry import BelowOne, Count
from imgcls_jax.types import Layout

PAPER = "arXiv 1608.06993"
TORCH = Layout("torch", (  # torchvision/models/densenet.py; timm's densenet.py has the same names
    (r"stem_(conv|norm)", r"features.\g<1>0"),
    (r"block(\d)_layer(\d+)/(conv|norm)(\d)", r"features.denseblock\1.denselayer\2.\3\4"),
    (r"transition(\d)/(conv|norm)", r"features.transition\1.\2"),
    (r"norm", r"features.norm5"),
    (r"head", r"classifier")), older=(  # torchvision's own files are from 2017
        (r"(features\.denseblock\d\.denselayer\d+\.(?:conv|norm))\.(\d\..*)", r"\1\2"),))
# keras/src/applications/densenet.py: a stage there is a block here, from 2 on.
KERAS = (
    (r"stem_(conv|norm)", lambda m: f"conv1_{'bn' if m[1] == 'norm' else 'conv'}"),
    (r"block(\d)_layer(\d+)/norm(\d)", lambda m: f"conv{int(m[1]) + 1}_block{m[2]}_"
                                                 f"{int(m[3]) - 1}_bn"),
    (r"block(\d)_layer(\d+)/conv(\d)", lambda m: f"conv{int(m[1]) + 1}_block{m[2]}_{m[3]}_conv"),
    (r"transition(\d)/norm", lambda m: f"pool{int(m[1]) + 1}_bn"),
    (r"transition(\d)/conv", lambda m: f"pool{int(m[1]) + 1}_conv"),
    (r"norm", r"bn"),
    (r"head", r"predictions"))
KERAS_NORM = {"momentum": 0.99, "epsilon": 1.001e-5}
IMAGENET = {"image_size": 224, "head": "head", "paper": PAPER,
            "layouts": {"torchvision": TORCH, "timm": TORCH}}


class DenseLayer(nn.Module):
    """The new channels of a layer, from a tuple of maps f[B,H,W,*] -> f[B,H,W,growth].

    Norm, ReLU, 1x1 convolution to bottleneck * growth channels; norm, ReLU, 3x3 convolution.
    The maps are separate arguments, so that `nn.remat` keeps each once and no concatenation.
    """

    growth: int
    bottleneck: int
    drop_rate: float
    norm_group: int | None
    dtype: Any
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, maps: tuple, train: bool):
        x = jnp.concatenate(maps, -1)
        x = nn.relu(_norm(self, "norm1")(x, train))
        x = _conv(self, self.bottleneck * self.growth, (1, 1), name="conv1")(x)
        x = nn.relu(_norm(self, "norm2")(x, train))
        x = _conv(self, self.growth, (3, 3), name="conv2")(x)
        return nn.Dropout(self.drop_rate, deterministic=not train, name="dropout")(x)


class Transition(nn.Module):
    """Fewer channels at half the size: f[B,H,W,C] -> f[B,H/2,W/2,features]."""

    features: int
    norm_group: int | None
    dtype: Any
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.relu(_norm(self, "norm")(x, train))
        return avg_pool(_conv(self, self.features, (1, 1), name="conv")(x), 2, 2)


class DenseNet(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or pooled features where num_classes is 0.

    blocks: dense layers per block; growth: channels that each of them adds.
    width: channels of the stem. bottleneck: width of the 1x1 convolutions, as multiples of growth.
    compression: share of the channels that is kept between two blocks.
    drop_rate: share of the units dropped after each dense layer.
    norm_group: examples per BatchNorm statistic, None for the whole batch.
    momentum, epsilon: of BatchNorm.
    remat: compute each dense layer again in the backward pass (arXiv 1707.06990).
    """

    num_classes: int
    blocks: tuple[int, ...]
    growth: int = 32
    width: int = 64
    bottleneck: int = 4
    compression: float = 0.5
    drop_rate: float = 0.0
    norm_group: int | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        layer = nn.remat(DenseLayer, static_argnums=(2,)) if self.remat else DenseLayer
        norm = self.norm_group, self.dtype, self.momentum, self.epsilon
        x = _conv(self, self.width, (7, 7), 2, name="stem_conv")(x)
        x = max_pool(nn.relu(_norm(self, "stem_norm")(x, train)), 3, 2, padding=1)
        for i, count in enumerate(self.blocks, 1):
            maps = (x,)
            for j in range(1, count + 1):
                maps += (layer(self.growth, self.bottleneck, self.drop_rate, *norm,
                               name=f"block{i}_layer{j}")(maps, train),)
            x = jnp.concatenate(maps, -1)
            if i < len(self.blocks):
                x = Transition(int(x.shape[-1] * self.compression), *norm,
                               name=f"transition{i}")(x, train)
        x = nn.relu(_norm(self, "norm")(x, train))
        wide = jnp.promote_types(self.dtype, jnp.float32)
        x = x.mean((1, 2), dtype=wide)
        if not self.num_classes:
            return x
        # torch's initial range of a dense layer: +-1/sqrt(inputs).
        init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        return nn.Dense(self.num_classes, kernel_init=init, dtype=wide, param_dtype=wide,
                        name="head")(x)


def _conv(module, features, kernel_size, stride=1, *, name):
    return Conv(features, kernel_size, stride, kernel_init=nn.initializers.he_normal(),
                dtype=module.dtype, name=name)


def _norm(module, name):
    return BatchNorm(module.norm_group, module.momentum, module.epsilon, dtype=module.dtype,
                     name=name)


def _keras(blocks: tuple[int, ...]) -> dict:
    """Facts of a variant as in Keras."""
    order = ["conv1_conv", "conv1_bn"]
    for i, count in enumerate(blocks, 2):
        order += [f"conv{i}_block{j}_{part}" for j in range(1, count + 1)
                  for part in ("0_bn", "1_conv", "1_bn", "2_conv")]
        order += [f"pool{i}_bn", f"pool{i}_conv"] if i <= len(blocks) else ["bn", "predictions"]
    return {**IMAGENET, "layouts": {"keras": Layout("keras", KERAS, order=tuple(order))}}


@MODELS.register(params=7_978_856, **IMAGENET)
def densenet121(num_classes: int, *, drop_rate: BelowOne = 0.0,
                norm_group: Count | None = None, remat: bool = False,
                dtype: str = "float32") -> nn.Module:
    return DenseNet(num_classes, (6, 12, 24, 16), drop_rate=drop_rate, norm_group=norm_group,
                    remat=remat, dtype=dtype)


@MODELS.register(params=28_681_000, **IMAGENET)
def densenet161(num_classes: int, *, drop_rate: BelowOne = 0.0,
                norm_group: Count | None = None, remat: bool = False,
                dtype: str = "float32") -> nn.Module:
    return DenseNet(num_classes, (6, 12, 36, 24), 48, 96, drop_rate=drop_rate,
                    norm_group=norm_group, remat=remat, dtype=dtype)


@MODELS.register(params=14_149_480, **IMAGENET)
def densenet169(num_classes: int, *, drop_rate: BelowOne = 0.0,
                norm_group: Count | None = None, remat: bool = False,
                dtype: str = "float32") -> nn.Module:
    return DenseNet(num_classes, (6, 12, 32, 32), drop_rate=drop_rate, norm_group=norm_group,
                    remat=remat, dtype=dtype)


@MODELS.register(params=20_013_928, **IMAGENET)
def densenet201(num_classes: int, *, drop_rate: BelowOne = 0.0,
                norm_group: Count | None = None, remat: bool = False,
                dtype: str = "float32") -> nn.Module:
    return DenseNet(num_classes, (6, 12, 48, 32), drop_rate=drop_rate, norm_group=norm_group,
                    remat=remat, dtype=dtype)


@MODELS.register(params=7_978_856, **_keras((6, 12, 24, 16)))
def keras_densenet121(num_classes: int, *, drop_rate: BelowOne = 0.0,
                      norm_group: Count | None = None, remat: bool = False,
                      dtype: str = "float32") -> nn.Module:
    """With Keras' BatchNorm; Keras counts 8,062,504 parameters, running statistics included."""
    return DenseNet(num_classes, (6, 12, 24, 16), drop_rate=drop_rate, norm_group=norm_group,
                    remat=remat, dtype=dtype, **KERAS_NORM)


@MODELS.register(params=14_149_480, **_keras((6, 12, 32, 32)))
def keras_densenet169(num_classes: int, *, drop_rate: BelowOne = 0.0,
                      norm_group: Count | None = None, remat: bool = False,
                      dtype: str = "float32") -> nn.Module:
    """With Keras' BatchNorm; Keras counts 14,307,880 parameters, running statistics included."""
    return DenseNet(num_classes, (6, 12, 32, 32), drop_rate=drop_rate, norm_group=norm_group,
                    remat=remat, dtype=dtype, **KERAS_NORM)


@MODELS.register(params=20_013_928, **_keras((6, 12, 48, 32)))
def keras_densenet201(num_classes: int, *, drop_rate: BelowOne = 0.0,
                      norm_group: Count | None = None, remat: bool = False,
                      dtype: str = "float32") -> nn.Module:
    """With Keras' BatchNorm; Keras counts 20,242,984 parameters, running statistics included."""
    return DenseNet(num_classes, (6, 12, 48, 32), drop_rate=drop_rate, norm_group=norm_group,
                    remat=remat, dtype=dtype, **KERAS_NORM)
