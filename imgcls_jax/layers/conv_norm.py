"""The basic block of the Inception networks: convolution, BatchNorm, ReLU."""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from imgcls_jax.layers.conv import Conv
from imgcls_jax.layers.norm import BatchNorm


class ConvNormRelu(nn.Module):
    """f[B,H,W,C] -> f[B,H',W',features]; `conv` without a bias, then `norm`.

    normalise: False leaves BatchNorm out, and gives the convolution a bias.
    """

    features: int
    kernel_size: tuple[int, int]
    stride: int = 1
    padding: tuple[int, int] | Literal["SAME"] | None = None
    normalise: bool = True
    norm_group: int | None = None
    epsilon: float = 1e-3
    kernel_init: Callable = nn.initializers.lecun_normal()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = Conv(self.features, self.kernel_size, self.stride, self.padding,
                 use_bias=not self.normalise, kernel_init=self.kernel_init, dtype=self.dtype,
                 name="conv")(x)
        if self.normalise:
            x = BatchNorm(self.norm_group, epsilon=self.epsilon, dtype=self.dtype,
                          name="norm")(x, train)
        return nn.relu(x)
