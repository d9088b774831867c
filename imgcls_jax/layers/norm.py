"""Batch normalisation under jit, where a layer sees the global batch."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from imgcls_jax.errors import ConfigError


class BatchNorm(nn.Module):
    """Batch normalisation (arXiv 1502.03167): f[B,...,C] -> f[B,...,C] in `dtype`.

    group: examples per statistic, consecutive in the batch, as on one replica of a published
      recipe; None means the whole batch. Running statistics average those of the groups, so the
      numbers depend on no mesh. The running variance takes the unbiased one, n/(n-1) of that which
      normalises, as the paper (algorithm 2), torch and TensorFlow have it; flax has not.
    momentum: share of the old running statistics that stays; 0.9 is torch's 0.1.

    ConfigError if `group` does not divide the batch.
    """

    group: int | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: Callable = nn.initializers.ones
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        wide = jnp.promote_types(self.dtype, jnp.float32)
        shape = x.shape[-1:]
        scale = self.param("scale", self.scale_init, shape, wide)
        bias = self.param("bias", nn.initializers.zeros, shape, wide)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, wide)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, wide)

        groups = x[None]
        mean, var = running_mean.value[None], running_var.value[None]
        if train and not self.is_initializing():
            groups = self._groups(x)
            mean, var = _moments(groups.astype(wide))
            count = groups[0].size // x.shape[-1]
            unbiased = var * (count / max(count - 1, 1))
            for running, value in ((running_mean, mean), (running_var, unbiased)):
                value = lax.stop_gradient(value).mean(0)
                running.value = self.momentum * running.value + (1 - self.momentum) * value
        over = (slice(None), *(None,) * (x.ndim - 1))
        factor = scale * lax.rsqrt(var + self.epsilon)
        y = (groups.astype(wide) - mean[over]) * factor[over] + bias
        return y.astype(self.dtype).reshape(x.shape)

    def _groups(self, x):
        size, batch = self.group or len(x), len(x)
        if batch % size:
            below = batch // size * size
            sizes = f"{below} or {below + size}" if below else f"{size}"
            raise ConfigError(
                f"BatchNorm takes statistics over {size} examples, which do not divide a "
                f"(micro)batch of {batch}", where=f"norm_group={size} in {'/'.join(self.path)}",
                fix=f"use a batch of {sizes} examples, or another norm_group")
        return x.reshape(batch // size, size, *x.shape[1:])


def _moments(groups):
    """f[G,N,...,C] -> mean and variance f[G,C], in one pass over the data."""
    axes = tuple(range(1, groups.ndim - 1))
    mean, square = groups.mean(axes), (groups * groups).mean(axes)
    # Rounding may leave the difference of a constant channel below zero.
    return mean, jnp.maximum(square - mean * mean, 0)
