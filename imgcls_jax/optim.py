"""Optimizers, schedules and masks -> one optax transformation.

A learning rate is a peak, `base`, times a shape in [0, 1], the schedule. Weight decay is coupled
(L2, added to the gradient), or decoupled times the learning rate (AdamW, arXiv 1711.05101), or
decoupled times the schedule alone (big_vision/optax.py).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from imgcls_jax import tree
from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Registry, bind

OPTIMIZERS = Registry("optimizer")
SCHEDULES = Registry("schedule")

Schedule = Callable[[Any], Any]  # step i32[] -> f32[]


# ---- optimizers: () -> transformation of gradients into a direction, without learning rate ---


@OPTIMIZERS.register()
def sgd(*, momentum: float = 0.9, nesterov: bool = False) -> optax.GradientTransformation:
    """Gradient descent with momentum as torch.optim.SGD has it: m = momentum * m + g."""
    return optax.trace(momentum, nesterov) if momentum else optax.identity()


@OPTIMIZERS.register()
def adamw(*, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8,
          mu_dtype: Literal["bfloat16", "float32"] | None = None) -> optax.GradientTransformation:
    """Adam (arXiv 1412.6980); with weight_decay.mode="times_lr" AdamW (arXiv 1711.05101).

    mu_dtype: dtype of the first moment, such as "bfloat16"; None keeps the parameters'.
    """
    return optax.scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype)


# ---- schedules: (steps after warm-up) -> shape; all start at 1 ------------------------------


@SCHEDULES.register()
def constant(steps: int) -> Schedule:
    """1 throughout."""
    return optax.constant_schedule(1.0)


@SCHEDULES.register()
def cosine(steps: int, *, floor: float = 0.0) -> Schedule:
    """Half a cosine from 1 to `floor` (arXiv 1608.03983, eq. 5, without restarts)."""
    return optax.cosine_decay_schedule(1.0, steps, alpha=floor)


@SCHEDULES.register()
def linear(steps: int, *, floor: float = 0.0) -> Schedule:
    """A straight line from 1 to `floor`."""
    return optax.linear_schedule(1.0, floor, steps)


@SCHEDULES.register()
def step(steps: int, *, boundaries: tuple, factor: float = 0.1) -> Schedule:
    """Times `factor` at each boundary, a duration counted from the end of the warm-up."""
    return optax.piecewise_constant_schedule(1.0, {int(b): factor for b in boundaries})


def _rate(*, base: float, per: int | None = None, warmup: int | None = None,
          warmup_start: float = 0.0):
    """The arguments that all schedules share. base: the peak learning rate, of a batch of `per`
    examples (linear scaling, arXiv 1706.02677), or as it is with per=None. warmup: a duration, a
    straight line from `warmup_start` times the peak; None: none."""
    return base, per, warmup, warmup_start


def learning_rate(choice: Mapping, total_steps: int, batch_size: int) -> tuple[float, Schedule]:
    """config.schedule with durations in steps -> (peak, shape): their product is the rate."""
    shared = {"base", "per", "warmup", "warmup_start"}
    own = SCHEDULES.bind({k: v for k, v in choice.items() if k not in shared}, "config.schedule")
    base, per, warmup, start = bind(_rate, {k: v for k, v in choice.items() if k in shared},
                                    "config.schedule")()
    warmup = warmup or 0
    if warmup >= total_steps:
        raise ConfigError(f"a warm-up of {warmup} steps in a run of {total_steps}",
                          where="config.schedule.warmup",
                          fix=f"train for longer, or --config.schedule.warmup.steps="
                              f"{max(total_steps // 10, 1)}, or --config.schedule.warmup=None")
    peak = base * (batch_size / per if per else 1.0)
    shape = own(total_steps - warmup)
    if warmup:
        shape = optax.join_schedules([optax.linear_schedule(start, 1.0, warmup), shape], [warmup])
    return peak, shape


# ---- the other parts ------------------------------------------------------------------------


def decay(*, value: float, on: str = ".*",
          mode: Literal["coupled", "times_lr", "times_schedule"] = "times_lr"):
    """config.weight_decay: on the parameters whose whole path matches the regex `on`."""
    return value, on, mode


def clip(*, norm: float | None = None, value: float | None = None):
    """config.clip: by global norm, or by value; both in units of the mean gradient."""
    parts = [optax.clip_by_global_norm(norm)] if norm is not None else []
    parts += [optax.clip(value)] if value is not None else []
    if not parts:
        raise ConfigError("clip names no bound", where="config.clip",
                          fix="set config.clip.norm or config.clip.value, or clip=None")
    return optax.chain(*parts)


def ema(*, decay: float, warmup: bool = False) -> Callable:
    """config.ema: an exponential moving average of parameters and model state.

    Returns (average, new values, steps done) -> average. warmup: decay is at most
    (1 + t) / (10 + t), so that the first steps do not stay in it (as TensorFlow's).
    """
    def update(average, new, steps_done):
        rate = jnp.minimum(decay, (1.0 + steps_done) / (10.0 + steps_done)) if warmup else decay
        return optax.incremental_update(new, average, 1.0 - rate)

    return update


def _matching(pattern: str, params, where: str):
    try:
        mask = tree.match(pattern, params)
    except (re.error, TypeError) as error:
        raise ConfigError(f"{pattern!r} is no regular expression: {error}", where=where,
                          fix="write it as Python's re does, as in '.*kernel'") from error
    if not any(jax.tree.leaves(mask)):
        raise ConfigError(f"{pattern!r} matches no parameter", where=where,
                          fix=f"paths are as {', '.join(list(tree.flatten(params))[:3])}; "
                              "the whole path must match")
    return mask


def build(config: Mapping, params, total_steps: int) -> tuple[optax.GradientTransformation,
                                                              Schedule]:
    """Optimizer, schedule, decay, clipping and freezing of a config with durations in steps.

    params: their shapes. Returns the transformation and the learning rate by step.
    """
    peak, shape = learning_rate(config["schedule"], total_steps, config["batch_size"])
    parts = []
    if config["clip"] is not None:
        parts.append(bind(clip, config["clip"], "config.clip")())
    value, on, mode = 0.0, ".*", "coupled"
    if config["weight_decay"] is not None:
        value, on, mode = bind(decay, config["weight_decay"], "config.weight_decay")()
    decayed = (optax.add_decayed_weights(value, _matching(on, params, "config.weight_decay.on"))
               if value else optax.identity())
    core = OPTIMIZERS.bind(config["optimizer"], "config.optimizer")()
    parts += [decayed] if mode == "coupled" else []
    parts.append(core)
    parts += [decayed] if mode == "times_lr" else []
    parts.append(optax.scale(peak))
    parts += [decayed] if mode == "times_schedule" else []
    parts += [optax.scale_by_schedule(shape), optax.scale(-1.0)]
    transformation = optax.chain(*parts)
    if config["freeze"]:
        masks = [_matching(pattern, params, "config.freeze") for pattern in config["freeze"]]
        labels = jax.tree.map(lambda *hits: "frozen" if any(hits) else "trained", *masks)
        transformation = optax.partition(
            {"trained": transformation, "frozen": optax.set_to_zero()}, labels)
    return transformation, lambda count: peak * shape(count)
