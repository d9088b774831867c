"""Adam, with weight decay in the gradient or decoupled."""

from typing import Literal

import optax

from imgcls_jax.optimizers import OPTIMIZERS, Parts
from imgcls_jax.registry import BelowOne, NotNegative


@OPTIMIZERS.register(decay="times_lr", high=0.1)
def adamw(parts: Parts, *, b1: BelowOne = 0.9, b2: BelowOne = 0.999, eps: NotNegative = 1e-8,
          mu_dtype: Literal["bfloat16", "float32"] | None = None) -> optax.GradientTransformation:
    """Adam with decoupled weight decay (arXiv 1711.05101), as torch.optim.AdamW.

    mu_dtype: dtype of the first moment, such as "bfloat16"; None keeps the parameters'.
    """
    direction = optax.scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype)
    return optax.chain(parts.inside, direction, parts.rate, parts.apart)


@OPTIMIZERS.register(decay="coupled", high=0.1)
def adam(parts: Parts, *, b1: BelowOne = 0.9, b2: BelowOne = 0.999, eps: NotNegative = 1e-8,
         mu_dtype: Literal["bfloat16", "float32"] | None = None) -> optax.GradientTransformation:
    """Adam (arXiv 1412.6980) with weight decay as L2 in the gradient, as torch.optim.Adam."""
    return adamw(parts, b1=b1, b2=b2, eps=eps, mu_dtype=mu_dtype)
