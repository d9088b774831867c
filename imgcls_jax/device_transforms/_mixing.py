"""Pairs of examples: what mixup, cutmix and the choice between them share.

The partner of an example is the one before it (the batch rolled by one, as in big_vision and
torchvision): on a mesh that moves one row per device, while timm's reversed order, or a random
one, would move all rows. Batches are shuffled, so either choice is equally random.
"""

import jax
import jax.numpy as jnp

from imgcls_jax.errors import ConfigError


def check(name: str, alphas: dict[str, float], shares: dict[str, float]):
    """ConfigError unless every alpha has a Beta distribution and every share is of 0 to 1."""
    for argument, alpha in alphas.items():
        if alpha <= 0:
            raise ConfigError(f"{name}: {argument}={alpha} is not above 0",
                              where="config.device_transforms",
                              fix=f"use {argument} > 0, or leave {name} out")
    for argument, share in shares.items():
        if not 0 <= share <= 1:
            raise ConfigError(f"{name}: {argument}={share} is out of range",
                              where="config.device_transforms", fix="use 0 to 1")


def mix(x, weight):
    """weight * x + (1 - weight) * partner, in f32 at least. x: [B,...]; weight: [B or 1,...], whose
    missing axes are those of x."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    weight = weight.astype(wide).reshape(weight.shape + (1,) * (x.ndim - weight.ndim))
    partner = jnp.roll(x, 1, axis=0).astype(wide)
    return (weight * x.astype(wide) + (1 - weight) * partner).astype(x.dtype)


def box(key, weight, height: int, width: int):
    """A box around a random center, cut off at the edge of the image, for each weight f[n].

    Its sides are sqrt(1 - weight) of the image's (arXiv 1905.04899, equation 2). Returns (bool
    [n,H,W], true in the box; f[n], the share of the image outside of it, exactly).
    """
    y_key, x_key = jax.random.split(key)
    (top, bottom), (left, right) = (
        _interval(y_key, weight, height), _interval(x_key, weight, width))
    rows, columns = jnp.arange(height), jnp.arange(width)
    inside = (((top <= rows) & (rows < bottom))[:, :, None]
              & ((left <= columns) & (columns < right))[:, None, :])
    area = ((bottom - top) * (right - left))[:, 0]
    return inside, 1 - area.astype(weight.dtype) / (height * width)


def _interval(key, weight, size: int):
    """(first, end) i32[n,1] along one axis."""
    center = jax.random.randint(key, weight.shape, 0, size)
    half = (0.5 * jnp.sqrt(1 - weight) * size).astype(jnp.int32)
    return (jnp.clip(center - half, 0, size)[:, None], jnp.clip(center + half, 0, size)[:, None])
