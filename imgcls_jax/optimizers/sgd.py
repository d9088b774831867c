"""Gradient descent with momentum."""

from typing import Literal

import optax

from imgcls_jax.optimizers import OPTIMIZERS, Parts
from imgcls_jax.registry import BelowOne


@OPTIMIZERS.register(decay="coupled", high=10)
def sgd(parts: Parts, *, momentum: BelowOne = 0.9, nesterov: bool = False,
        form: Literal["torch", "paper"] = "torch") -> optax.GradientTransformation:
    """Gradient descent with momentum.

    form: "torch" has the learning rate outside the buffer, m = momentum * m + g, as
    torch.optim.SGD; "paper" inside it, m = momentum * m + rate * g, as arXiv 1404.5997 and Caffe,
    where a change of the rate no longer affects past gradients (arXiv 1706.02677, section 3).
    """
    buffer = optax.trace(momentum, nesterov) if momentum else optax.identity()
    if form == "paper":
        return optax.chain(parts.inside, parts.rate, buffer, parts.apart)
    return optax.chain(parts.inside, buffer, parts.rate, parts.apart)
