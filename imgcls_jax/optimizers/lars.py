"""Momentum with each tensor's gradient scaled in proportion to the norm of the tensor."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax

from imgcls_jax.optimizers import OPTIMIZERS, Parts
from imgcls_jax.registry import BelowOne, NotNegative, Positive


@OPTIMIZERS.register(decay="coupled", high=100)
def lars(parts: Parts, *, momentum: BelowOne = 0.9, nesterov: bool = False, trust: Positive = 0.001,
         eps: NotNegative = 1e-8, adapt: Literal["decayed", "all"] = "decayed"
         ) -> optax.GradientTransformation:
    """LARS (arXiv 1708.03888, eq. 6): gradient and decay times trust * |w| / (|g| + |decay|).

    adapt: "decayed" scales only the parameters that have weight decay, as timm's Lars and published
    results, which leave biases and BatchNorm out; "all" every one. The learning rate is outside the
    momentum, as in timm's.
    """
    local = _local_rate(parts.inside, trust, eps)
    if adapt == "decayed":
        local = optax.masked(local, parts.decayed)
    buffer = optax.trace(momentum, nesterov) if momentum else optax.identity()
    return optax.chain(local, buffer, parts.rate, parts.apart)


def _local_rate(decay: optax.GradientTransformation, trust: float, eps: float):
    """Divides by the sum of the norms; optax.scale_by_trust_ratio takes the norm of the sum."""
    def scaled(g, d, p):
        norms = jnp.linalg.norm(g.ravel()), jnp.linalg.norm(d.ravel()), jnp.linalg.norm(p.ravel())
        ratio = trust * norms[2] / (norms[0] + norms[1] + eps)
        return (g + d) * jnp.where((norms[0] > 0) & (norms[2] > 0), ratio, 1.0).astype(g.dtype)

    def update(updates, state, params=None):
        terms, _ = decay.update(jax.tree.map(jnp.zeros_like, updates), optax.EmptyState(), params)
        return jax.tree.map(scaled, updates, terms, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
