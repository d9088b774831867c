"""What the steps share: gradients of a batch in microbatches, and the optimizer update."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from imgcls_jax.errors import ConfigError
from imgcls_jax.steps import Parts
from imgcls_jax.steps._guard import if_finite

Reduce = Literal["float32", "bfloat16"] | None


def forward(parts: Parts, params, model_state, images, key):
    """(logits f32[B,K], new model state, what was sown into "aux_logits") in training mode."""
    logits, new = parts.apply({"params": params, **model_state}, images, train=True,
                              mutable=[*model_state, "aux_logits"], rngs={"dropout": key})
    new = dict(new)
    sown = new.pop("aux_logits", {})
    return logits, new, sown


def mean_loss(parts: Parts, auxiliary: float) -> Callable:
    """(params, state, images, targets, key) -> (mean loss, (logits, new model state)).

    auxiliary: weight of the loss of each head that the model has sown into "aux_logits".
    """
    def loss(params, state, images, targets, key):
        logits, new, sown = forward(parts, params, state.model_state, images, key)
        value = parts.task.loss(logits, targets).mean()
        for others in jax.tree.leaves(sown):
            value += auxiliary * parts.task.loss(others, targets).mean()
        return value, (logits, new)

    return loss


def counted(parts: Parts, logits, targets, value) -> dict:
    """Sums of a batch: the task's metrics, and the loss, of which `value` is the mean."""
    ones = jnp.ones(len(logits), logits.dtype)
    sums = {}
    for metric in parts.task.metrics.values():
        if metric.update:
            sums |= metric.update(logits, targets, ones)
    return {**sums, "loss": value * len(logits)}


def gradients(parts: Parts, loss: Callable, accumulate: int, reduce: Reduce) -> Callable:
    """(state, images, targets, key) -> (gradients, model state, Sums), for a whole batch.

    loss: as returned by `mean_loss`. accumulate, reduce: as in the step `supervised`.
    """
    if accumulate < 1:
        raise ConfigError(f"accumulate={accumulate} is too small", where="config.step.accumulate",
                          fix="use 1 or more")
    gradient = jax.value_and_grad(loss, has_aux=True)

    def microbatch(state, images, targets, key):
        (value, (logits, model_state)), grads = gradient(state.params, state, images, targets, key)
        return grads, model_state, counted(parts, logits, targets, value)

    def accumulated(state, images, targets, key):
        if accumulate == 1:
            return microbatch(state, images, targets, jax.random.fold_in(key, 0))

        # Every accumulate-th example: a plain reshape would move examples between devices.
        def split(x):
            return x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1)

        def body(carry, xs):
            new = microbatch(state, *xs)
            return jax.tree.map(jnp.add, carry, new), None

        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(accumulate))
        xs = (split(images), split(targets), keys)
        zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(
            microbatch, state, *jax.tree.map(lambda x: x[0], xs)))
        (grads, model_state, sums), _ = jax.lax.scan(body, zero, xs)
        mean = jax.tree.map(lambda x: x / accumulate, (grads, model_state))
        return (*mean, sums)

    return parts.by_shard(accumulated, reduce) if reduce else accumulated


def step(parts: Parts, gradients: Callable) -> Callable:
    """(state, batch) -> (state, Sums): prepares the batch and applies one update.

    gradients: (state, images, targets, key) -> (gradients, model state, Sums).
    """
    optimizer = optax.with_extra_args_support(parts.optimizer)

    def update(state, grads, model_state, value):
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, value=value)
        params = optax.apply_updates(state.params, updates)
        new = state.replace(step=state.step + 1, params=params, model_state=model_state,
                            opt_state=opt_state)
        if parts.ema:
            values = {"params": params, "model_state": model_state}
            new = new.replace(ema=parts.ema(state.ema, values, new.step, opt_state))
        return new

    def one(state, batch):
        key = jax.random.fold_in(jax.random.key(parts.seed), state.step)
        images, targets = parts.prepare(jax.random.fold_in(key, 1), batch["image"],
                                        parts.task.targets(batch["label"]))
        grads, model_state, sums = gradients(state, images, targets, jax.random.fold_in(key, 2))

        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(sums["loss"]) & jnp.isfinite(norm)
        # Constants stay outside of the choice, which could copy them.
        new = if_finite(finite, update, state.replace(constants=None), grads, model_state,
                        sums["loss"] / len(images))
        new = new.replace(constants=state.constants)
        return new, {**sums, "gradient_norm": norm, "steps": jnp.ones((), norm.dtype),
                     "nonfinite": 1.0 - finite}

    return one
