"""Squeeze and excitation."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from imgcls_jax.layers.conv import Conv


class SqueezeExcite(nn.Module):
    """Gate on the channels (arXiv 1709.01507, eq. 2 to 4): f[B,H,W,C] -> f[B,H,W,C].

    hidden: channels in between; the mean over the image is computed in f32 at least.
    """

    hidden: int
    activation: Callable = nn.relu
    gate: Callable = nn.sigmoid
    kernel_init: Callable = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        def dense(features, name):
            return Conv(features, (1, 1), use_bias=True, kernel_init=self.kernel_init,
                        dtype=self.dtype, name=name)

        wide = jnp.promote_types(self.dtype, jnp.float32)
        s = x.mean((1, 2), keepdims=True, dtype=wide).astype(self.dtype)
        s = dense(x.shape[-1], "expand")(self.activation(dense(self.hidden, "reduce")(s)))
        return x * self.gate(s)
