"""Mixup: convex combinations of pairs of examples."""

import jax
import jax.numpy as jnp

from imgcls_jax.device_transforms import DEVICE_TRANSFORMS
from imgcls_jax.errors import ConfigError


@DEVICE_TRANSFORMS.register()
def mixup(*, alpha: float, p: float = 1.0):
    """Mixes each example with its neighbor, by one weight per batch (arXiv 1710.09412).

    The weight is max(l, 1 - l) with l from Beta(alpha, alpha); p: share of batches that are mixed.
    The partner is the batch rolled by one: over a mesh that moves one row per device to the next,
    where a random or reversed order would move all of them.
    """
    if alpha <= 0:
        raise ConfigError(f"mixup with alpha={alpha}", where="config.device_transforms",
                          fix="use alpha > 0, or leave mixup out")

    def transform(key, images, targets):
        weight_key, mix_key = jax.random.split(key)
        weight = jax.random.beta(weight_key, alpha, alpha, dtype=targets.dtype)
        weight = jnp.maximum(weight, 1 - weight)
        weight = jnp.where(jax.random.bernoulli(mix_key, p), weight, 1)

        def mix(x):
            w = weight.astype(x.dtype)
            return w * x + (1 - w) * jnp.roll(x, 1, axis=0)

        return mix(images), mix(targets)

    return transform
