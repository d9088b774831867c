"""Sharpness-aware minimisation: the gradient at the worst point nearby."""

import jax
import jax.numpy as jnp
import optax

from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Positive
from imgcls_jax.steps import STEPS, Parts, _update


@STEPS.register(features=True)
def sam(parts: Parts, *, rho: Positive = 0.05, adaptive: bool = False, accumulate: int = 1,
        auxiliary: float = 0.3, reduce: _update.Reduce = None):
    """`supervised` with the gradient at w + e (arXiv 2010.01412, algorithm 1), at twice the cost.

    e = rho g / |g| (eq. 2), or rho w^2 g / |w g| if adaptive (ASAM, arXiv 2102.11600, eq. 9), which
    needs a larger rho, 0.5 to 2 in that paper. g is the gradient of the whole batch. Dropout draws
    the same in both passes; running statistics, the loss and the metrics are those of the first,
    because the weights at w + e are never evaluated. accumulate, auxiliary, reduce: as in
    `supervised`.
    """
    if rho < 0:
        raise ConfigError(f"rho={rho} is below 0",
                          where="config.step.rho", fix="use 0 or more, such as 0.05")
    gradients = _update.gradients(parts, _update.mean_loss(parts, auxiliary), accumulate, reduce)

    def sharp(state, images, targets, key):
        grads, model_state, sums = gradients(state, images, targets, key)
        size = jax.tree.map(jnp.abs, state.params) if adaptive else jax.tree.map(
            jnp.ones_like, state.params)
        scaled = jax.tree.map(jnp.multiply, size, grads)
        # A gradient of 0 has no direction: then e is 0, not NaN.
        length = rho / jnp.maximum(optax.tree.norm(scaled), 1e-12)
        worst = jax.tree.map(lambda w, n, g: w + (length * n * g).astype(w.dtype), state.params,
                             size, scaled)
        grads, _, _ = gradients(state.replace(params=worst), images, targets, key)
        return grads, model_state, sums

    return _update.step(parts, sharp)
