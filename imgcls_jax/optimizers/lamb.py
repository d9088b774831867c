"""Adam with each tensor's step proportional to the norm of the tensor."""

from typing import Literal

import optax

from imgcls_jax.optimizers import OPTIMIZERS, Parts
from imgcls_jax.registry import BelowOne, NotNegative


@OPTIMIZERS.register(decay="coupled", high=0.1)
def lamb(parts: Parts, *, b1: BelowOne = 0.9, b2: BelowOne = 0.999, eps: NotNegative = 1e-6,
         adapt: Literal["decayed", "all"] = "decayed") -> optax.GradientTransformation:
    """LAMB (arXiv 1904.00962, algorithm 2): Adam's direction and the decay, scaled to the norm of
    the parameter.

    adapt: "decayed" scales only the parameters that have weight decay, as timm's Lamb; "all" every
    one. timm also clips gradients to a global norm of 1: config.clip = dict(norm=1.0). Its
    decoupled decay differs from mode "times_lr": it precedes the norm of the parameter.
    """
    trust = optax.scale_by_trust_ratio()
    if adapt == "decayed":
        trust = optax.masked(trust, parts.decayed)
    return optax.chain(optax.scale_by_adam(b1, b2, eps), parts.inside, trust, parts.rate,
                       parts.apart)
