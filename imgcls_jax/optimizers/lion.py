"""Updates by the sign of a momentum."""

from typing import Literal

import optax

from imgcls_jax.optimizers import OPTIMIZERS, Parts


@OPTIMIZERS.register(decay="times_lr")
def lion(parts: Parts, *, b1: float = 0.9, b2: float = 0.99,
         mu_dtype: Literal["bfloat16", "float32"] | None = None) -> optax.GradientTransformation:
    """Lion (arXiv 2302.06675, program 1). Use a learning rate 3 to 10 times smaller than AdamW's,
    and a decay as much larger. mu_dtype: dtype of the momentum; None keeps the parameters'."""
    return optax.chain(parts.inside, optax.scale_by_lion(b1, b2, mu_dtype), parts.rate, parts.apart)
