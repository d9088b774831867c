"""CutMix: a box of one example pasted into another."""

from typing import Literal

import jax
import jax.numpy as jnp

from imgcls_jax.device_transforms import DEVICE_TRANSFORMS, _mixing
from imgcls_jax.registry import Share


@DEVICE_TRANSFORMS.register()
def cutmix(*, alpha: float, p: Share = 1.0, mode: Literal["batch", "elem"] = "batch"):
    """Pastes a box of the previous example in the batch into each example (arXiv 1905.04899).

    The box has 1 - l of the area, l from Beta(alpha, alpha), before it is cut off at the edge;
    targets are mixed by the area that remains. Its sides are even, as in torchvision and in the
    timm of the published recipes; timm 1.0.31 has odd ones too. mode: one box per batch, or one per
    example; p: share of batches, or of examples, that are mixed.
    """
    _mixing.check("cutmix", dict(alpha=alpha), dict(p=p))

    def transform(key, images, targets):
        weight_key, mix_key, box_key = jax.random.split(key, 3)
        draws = (len(images) if mode == "elem" else 1,)
        weight = jax.random.beta(weight_key, alpha, alpha, draws, targets.dtype)
        weight = jnp.where(jax.random.bernoulli(mix_key, p, draws), weight, 1)
        inside, outer = _mixing.box(box_key, weight, *images.shape[1:3])
        return _mixing.mix(images, 1 - inside.astype(targets.dtype)), _mixing.mix(targets, outer)

    return transform
