"""Convolution with torch's padding; 1x1 kernels are matrix products."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from imgcls_jax.layers.convolve import convolve
from imgcls_jax.layers.matmul import matmul

# Ratio of output to input channels from which a Product is returned. BatchNorm then computes
# products of the inputs with each other instead of reading the output, which costs at most half
# the convolution.
WIDENS = 2


class Product(NamedTuple):
    """A 1x1 convolution that is not computed yet: the next layer may have a cheaper way.

    inputs: f[B,H,W,K]; kernel: f[K,C] of the same dtype.
    """

    inputs: Any
    kernel: Any


class Conv(nn.Module):
    """2-D convolution f[B,H,W,C] -> f[B,H',W',features]; kernel [height, width, in / groups, out].

    padding: pixels on each side of (height, width). None is half the kernel, which keeps the
      size at stride 1. It is the same on both sides, as in torch. "SAME" is TensorFlow's, which is
      not symmetric at stride 2: weights from torch would see every feature shifted by a pixel.
    groups: channels are split into so many groups, convolved separately; depthwise: one per
      channel.
    kernel_map: a function applied to the kernel before the convolution, such as weight
      standardisation.
    factored: return the Product of a 1x1 convolution that widens, for layers.norm.BatchNorm.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    stride: int = 1
    padding: tuple[int, int] | Literal["SAME"] | None = None
    groups: int = 1
    use_bias: bool = False
    kernel_init: Callable = nn.initializers.lecun_normal()
    bias_init: Callable = nn.initializers.zeros
    dtype: Any = jnp.float32
    kernel_map: Callable | None = None
    factored: bool = False

    @nn.compact
    def __call__(self, x):
        wide = jnp.promote_types(self.dtype, jnp.float32)
        shape = (*self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, wide)
        kernel = (self.kernel_map(kernel) if self.kernel_map else kernel).astype(self.dtype)
        padding = self.padding or tuple(size // 2 for size in self.kernel_size)
        x = x.astype(self.dtype)
        if self.kernel_size == (1, 1) and self.groups == 1 and padding in ((0, 0), "SAME"):
            # XLA's CPU backend is 2 to 7 times slower in the weight gradient of the convolution.
            x = x[:, ::self.stride, ::self.stride]
            if self.factored and self.features >= WIDENS * x.shape[-1] and not self.use_bias:
                return Product(x, kernel[0, 0])
            y = matmul(x, kernel[0, 0])
        else:
            padding = padding if padding == "SAME" else [(size, size) for size in padding]
            y = convolve(x, kernel, self.stride, padding, self.groups)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), wide)
            y = y + bias.astype(self.dtype)
        return y
