"""EfficientNet: the parts that both versions share."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from imgcls_jax.layers.conv import Conv
from imgcls_jax.layers.inverted_residual import InvertedResidual, add
from imgcls_jax.layers.norm import BatchNorm
from imgcls_jax.models import _mobile_names
from imgcls_jax.registry import BelowOne, Count
from imgcls_jax.types import Layout


class Stage(NamedTuple):
    """A row of the papers' tables: blocks that differ in the first one's stride and input."""

    expand: int  # inner width divided by the input's width
    kernel: int
    stride: int
    features: int
    blocks: int
    fused: bool = False


class FusedBlock(nn.Module):
    """Widening and depthwise convolution as one full convolution: f[B,H,W,C] -> f[B,H',W',D].

    arXiv 2104.00298, figure 2, without a gate. Without widening there is only this convolution.
    conv, norm, drop_path: as in InvertedResidual.
    """

    features: int
    expanded: int
    kernel: int
    stride: int
    conv: Callable
    norm: Callable
    drop_path: float

    @nn.compact
    def __call__(self, x, train: bool):
        widens = self.expanded != x.shape[-1]
        y = self.conv(self.expanded if widens else self.features, (self.kernel, self.kernel),
                      self.stride, name="fused_conv")(x)
        y = nn.silu(self.norm(name="fused_norm")(y, train))
        if widens:
            y = self.conv(self.features, (1, 1), name="project_conv")(y)
            y = self.norm(name="project_norm")(y, train)
        return add(x, y, self.stride, self.drop_path, train)


class EfficientNet(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or pooled features where num_classes is 0.

    stem, last: channels of the first and of the last convolution.
    squeeze: whether blocks without fused convolutions have a squeeze-and-excitation gate.
    form: "torch" pads symmetrically, "tensorflow" pads "SAME" and starts depthwise kernels larger.
    momentum, epsilon: of BatchNorm; norm_group: examples per statistic, None for the whole batch.
    dropout: of the pooled features.
    drop_path: stochastic depth; block i of n leaves its branch out with probability
      drop_path * i / n, i from 0.
    remat: compute each block again in the backward pass, to save memory.
    """

    num_classes: int
    stages: tuple[Stage, ...]
    stem: int
    last: int
    activation: Callable = nn.silu
    squeeze: bool = True
    dropout: float = 0.2
    drop_path: float = 0.2
    form: Literal["torch", "tensorflow"] = "torch"
    momentum: float = 0.9
    epsilon: float = 1e-5
    norm_group: int | None = None
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        tensorflow = self.form == "tensorflow"
        # A kernel's fan-out counts the outputs of all groups in torch, of one in TensorFlow.
        fan_out, depthwise_init = (nn.initializers.variance_scaling(2.0, mode, "normal")
                                   for mode in ("fan_out", "fan_in" if tensorflow else "fan_out"))
        conv, depthwise = (functools.partial(Conv, padding="SAME" if tensorflow else None,
                                             kernel_init=init, dtype=self.dtype)
                           for init in (fan_out, depthwise_init))
        norm = functools.partial(BatchNorm, self.norm_group, self.momentum, self.epsilon,
                                 dtype=self.dtype)
        wrap = functools.partial(nn.remat, static_argnums=(2,)) if self.remat else (lambda f: f)
        mobile, fused = wrap(InvertedResidual), wrap(FusedBlock)

        x = conv(self.stem, (3, 3), 2, name="stem_conv")(x)
        x = self.activation(norm(name="stem_norm")(x, train))
        done, total = 0, sum(stage.blocks for stage in self.stages)
        for i, stage in enumerate(self.stages, 1):
            for j in range(stage.blocks):
                shape = (stage.features, stage.expand * x.shape[-1], stage.kernel,
                         1 if j else stage.stride)
                drop_path, name = self.drop_path * done / total, f"stage{i}_block{j}"
                if stage.fused:
                    block = fused(*shape, conv, norm, drop_path, name=name)
                else:
                    gate = max(1, x.shape[-1] // 4) if self.squeeze else 0
                    block = mobile(*shape, gate, self.activation, conv, depthwise, norm,
                                   drop_path, self.activation, dtype=self.dtype, name=name)
                x, done = block(x, train), done + 1
        x = conv(self.last, (1, 1), name="last_conv")(x)
        x = self.activation(norm(name="last_norm")(x, train))

        wide = jnp.promote_types(self.dtype, jnp.float32)
        x = x.mean((1, 2), dtype=wide)
        if not self.num_classes:
            return x
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        init = nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")
        return nn.Dense(self.num_classes, kernel_init=init, dtype=wide, param_dtype=wide,
                        name="head")(x)


def layouts(stages: tuple[Stage, ...]) -> dict[str, Layout]:
    """torchvision/models/efficientnet.py and timm/models/efficientnet.py."""
    def parts(stage, block):
        widens = stages[stage - 1].expand > 1
        if stages[stage - 1].fused:
            return ("fused", "project") if widens else ("fused",)
        return _mobile_names.PARTS if widens else _mobile_names.PARTS[1:]

    last = f"features.{len(stages) + 1}"
    torchvision = (*_mobile_names.torchvision(parts, lambda i, j: f"features.{i}.{j}.block"),
                   (r"last_conv", f"{last}.0"), (r"last_norm", f"{last}.1"),
                   (r"head", r"classifier.1"))
    timm = (*_mobile_names.timm(parts), (r"last_conv", r"conv_head"), (r"last_norm", r"bn2"),
            (r"head", r"classifier"))
    return {"torchvision": Layout("torch", torchvision), "timm": Layout("torch", timm)}


def keras_layout(stages: tuple[Stage, ...]) -> Layout:
    """keras/src/applications/efficientnet.py. Its first layer normalises the images; here the
    preprocessing does."""
    def name(stage, block, part, leaf):
        prefix = f"block{stage}{chr(ord('a') + block)}_"
        if part == "squeeze_excite":
            return f"{prefix}se_{leaf}"
        if part == "depthwise":
            return f"{prefix}{'bn' if leaf == 'norm' else 'dwconv'}"
        return f"{prefix}{part}_{'bn' if leaf == 'norm' else 'conv'}"

    order = ["normalization", "stem_conv", "stem_bn"]
    shapes = []
    for i, stage in enumerate(stages, 1):
        shapes.append((rf"block{i}._dwconv/kernel", (stage.kernel, stage.kernel, -1, 1)))
        parts = _mobile_names.PARTS if stage.expand > 1 else _mobile_names.PARTS[1:]
        order += [name(i, j, part, leaf) for j in range(stage.blocks) for part in parts
                  for leaf in (("reduce", "expand") if part == "squeeze_excite" else
                               ("conv", "norm"))]
    order += ["top_conv", "top_bn", "predictions"]
    return Layout("keras", (
        *_mobile_names.renames(name), (r"stem_conv", r"stem_conv"), (r"stem_norm", r"stem_bn"),
        (r"last_conv", r"top_conv"), (r"last_norm", r"top_bn"), (r"head", r"predictions")),
        unused=(r"normalization(_\d+)?/.*",), shapes=tuple(shapes), order=tuple(order))


def variant(dropout: float) -> Callable[[Callable], Callable]:
    """Decorator: gives a variant the common options, hence their schema, with its own dropout."""
    def options(num_classes: int, *, dropout: BelowOne = dropout, drop_path: BelowOne = 0.2,
                norm_group: Count | None = None, remat: bool = False,
                dtype: str = "float32") -> nn.Module:
        """The signature of every variant."""

    def decorate(function):
        @functools.wraps(function)
        def build(num_classes, **given):
            return function(num_classes, **{"dropout": dropout, **given})

        build.__signature__ = inspect.signature(options)
        build.__annotations__ = options.__annotations__
        return build

    return decorate
