"""Re-estimates BatchNorm's statistics; nothing is learned."""

import jax
import jax.numpy as jnp

from imgcls_jax.errors import ConfigError
from imgcls_jax.steps import STEPS, Parts, _update


@STEPS.register()
def batch_norm(parts: Parts, *, auxiliary: float = 0.3):
    """Re-estimates BatchNorm's running statistics as the mean over all batches so far.

    Averaged weights need this before they are evaluated (arXiv 1803.05407, section 3.2; "precise
    BN" in arXiv 2105.07576, section 3): parameters stay, and after step t the mean and variance of
    every BatchNorm are the means over the t batches, independent of its momentum and of their
    earlier values. (state, batch) -> (state, Sums). auxiliary: as in `supervised`, for the loss in
    Sums.
    """
    loss = _update.mean_loss(parts, auxiliary)

    def step(state, batch):
        before = state.model_state.get("batch_stats")
        if before is None:
            raise ConfigError("the model has no BatchNorm", where="config.step.name",
                              fix="use another step")
        key = jax.random.fold_in(jax.random.key(parts.seed), state.step)
        images, targets = parts.prepare(jax.random.fold_in(key, 1), batch["image"],
                                        parts.task.targets(batch["label"]))

        def trained(stats):
            model_state = {**state.model_state, "batch_stats": stats}
            value, (logits, new) = loss(state.params, state.replace(model_state=model_state),
                                        images, targets, jax.random.fold_in(key, 2))
            return new["batch_stats"], (value, logits)

        # Training gives m r + (1 - m) b from the running r and the batch's b, which does not depend
        # on r: r = 0 gives (1 - m) b, and the derivative by r is m, which may differ by layer.
        zeros = jax.tree.map(jnp.zeros_like, before)
        scaled, derivative, (value, logits) = jax.vjp(trained, zeros, has_aux=True)
        momentum, = derivative(jax.tree.map(jnp.ones_like, scaled))
        done = state.step.astype(jnp.float32)

        def mean(old, scaled, momentum):
            return (old * done + scaled / (1.0 - momentum)) / (done + 1.0)

        stats = jax.tree.map(mean, before, scaled, momentum)
        new = state.replace(step=state.step + 1,
                            model_state={**state.model_state, "batch_stats": stats})
        if parts.ema:  # these are evaluated
            new = new.replace(ema={"params": state.ema["params"], "model_state": new.model_state})
        zero = jnp.zeros((), value.dtype)
        return new, {**_update.counted(parts, logits, targets, value), "gradient_norm": zero,
                     "steps": zero + 1.0, "nonfinite": 1.0 - jnp.isfinite(value)}

    return step
