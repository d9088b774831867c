"""Mixup or CutMix, at random."""

from typing import Literal

import jax
import jax.numpy as jnp

from imgcls_jax.device_transforms import DEVICE_TRANSFORMS, _mixing
from imgcls_jax.registry import Share


@DEVICE_TRANSFORMS.register()
def mixup_or_cutmix(*, mixup_alpha: float, cutmix_alpha: float, p: Share = 1.0,
                    switch_prob: float = 0.5, mode: Literal["batch", "elem"] = "batch"):
    """CutMix with probability switch_prob, else mixup, drawn for each batch or each example.

    p: share of batches, or of examples, that are mixed at all. Equals timm's Mixup(prob=p), and
    with p=1 and switch_prob=0.5 torchvision's RandomChoice of both, except that the partner is the
    previous example. The weight of mixup is the Beta variable itself.
    """
    _mixing.check("mixup_or_cutmix", dict(mixup_alpha=mixup_alpha, cutmix_alpha=cutmix_alpha),
                  dict(p=p, switch_prob=switch_prob))

    def transform(key, images, targets):
        keys = jax.random.split(key, 5)
        draws = (len(images) if mode == "elem" else 1,)
        cut = jax.random.bernoulli(keys[0], switch_prob, draws)
        weight = jnp.where(
            cut, jax.random.beta(keys[1], cutmix_alpha, cutmix_alpha, draws, targets.dtype),
            jax.random.beta(keys[2], mixup_alpha, mixup_alpha, draws, targets.dtype))
        weight = jnp.where(jax.random.bernoulli(keys[3], p, draws), weight, 1)
        inside, outer = _mixing.box(keys[4], weight, *images.shape[1:3])
        of_pixels = jnp.where(cut[:, None, None], 1 - inside, weight[:, None, None])
        return _mixing.mix(images, of_pixels), _mixing.mix(targets, jnp.where(cut, outer, weight))

    return transform
