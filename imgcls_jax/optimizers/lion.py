"""Updates by the sign of a momentum."""

from typing import Literal

import optax

from imgcls_jax.optimizers import OPTIMIZERS, Parts
from imgcls_jax.registry import BelowOne


@OPTIMIZERS.register(decay="times_lr", high=0.03)
def lion(parts: Parts, *, b1: BelowOne = 0.9, b2: BelowOne = 0.99,
         mu_dtype: Literal["bfloat16", "float32"] | None = None) -> optax.GradientTransformation:
    """Lion (arXiv 2302.06675, program 1). Use a learning rate 3 to 10 times smaller than AdamW's,
    and a decay as much larger. mu_dtype: dtype of the momentum; None keeps the parameters'."""
    return optax.chain(parts.inside, optax.scale_by_lion(b1, b2, mu_dtype), parts.rate, parts.apart)
