"""Mixup: convex combinations of pairs of examples."""

from typing import Literal

import jax
import jax.numpy as jnp

from imgcls_jax.device_transforms import DEVICE_TRANSFORMS, _mixing
from imgcls_jax.registry import Share


@DEVICE_TRANSFORMS.register()
def mixup(*, alpha: float, p: Share = 1.0, larger: bool = True,
          mode: Literal["batch", "elem"] = "batch"):
    """Mixes each example with the previous one in the batch (arXiv 1710.09412).

    The weight of the example itself is l from Beta(alpha, alpha). larger: max(l, 1 - l) instead, as
    in big_vision; timm and torchvision have False. mode: one weight per batch, or one per example;
    p: share of batches, or of examples, that are mixed.
    """
    _mixing.check("mixup", dict(alpha=alpha), dict(p=p))

    def transform(key, images, targets):
        weight_key, mix_key = jax.random.split(key)
        draws = (len(images) if mode == "elem" else 1,)
        weight = jax.random.beta(weight_key, alpha, alpha, draws, targets.dtype)
        weight = jnp.maximum(weight, 1 - weight) if larger else weight
        weight = jnp.where(jax.random.bernoulli(mix_key, p, draws), weight, 1)
        return _mixing.mix(images, weight), _mixing.mix(targets, weight)

    return transform
