"""The inverted residual block of mobile networks, and how they round a scaled width."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from imgcls_jax.layers.drop import DropPath
from imgcls_jax.layers.squeeze_excite import SqueezeExcite


def round_channels(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, halves up, or the next if rounding loses over a tenth.

    At least `divisor` (tensorflow/models, slim/nets/mobilenet: the rule of every mobile network).
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class InvertedResidual(nn.Module):
    """Widen, convolve depthwise, gate, narrow: f[B,H,W,C] -> f[B,H/stride,W/stride,D].

    arXiv 1801.04381, section 3.3, with the gate of arXiv 1905.02244, section 5.3. The input is
    added if it has the shape of the output and the stride is 1.

    expanded: channels in between; without widening if equal to those of the input.
    squeeze: channels within the gate, 0 for no gate.
    conv, depthwise, norm: (..., name=) -> module, with all settings except the shape.
    drop_path: probability of leaving the branch out in training.
    """

    features: int
    expanded: int
    kernel: int
    stride: int
    squeeze: int
    activation: Callable
    conv: Callable
    depthwise: Callable
    norm: Callable
    drop_path: float = 0.0
    squeeze_activation: Callable = nn.relu
    gate: Callable = nn.sigmoid
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool):
        y = x
        if self.expanded != x.shape[-1]:
            y = self.conv(self.expanded, (1, 1), name="expand_conv")(y)
            y = self.activation(self.norm(name="expand_norm")(y, train))
        y = self.depthwise(self.expanded, (self.kernel, self.kernel), self.stride,
                           groups=self.expanded, name="depthwise_conv")(y)
        y = self.activation(self.norm(name="depthwise_norm")(y, train))
        if self.squeeze:
            y = SqueezeExcite(self.squeeze, self.squeeze_activation, self.gate, dtype=self.dtype,
                              name="squeeze_excite")(y)
        y = self.conv(self.features, (1, 1), name="project_conv")(y)
        y = self.norm(name="project_norm")(y, train)
        return add(x, y, self.stride, self.drop_path, train)


def add(x, y, stride: int, drop_path: float, train: bool):
    """The branch y f[B,...] plus its input x, if both have the same shape and stride is 1."""
    # A map of one pixel keeps its shape at stride 2, but there the references add nothing.
    if stride > 1 or x.shape != y.shape:
        return y
    return x + DropPath(drop_path, name="drop_path")(y, train)
