"""Terms that several losses share."""

from typing import Literal

import jax.numpy as jnp
import optax

from imgcls_jax.errors import ConfigError

Reduce = Literal["sum", "mean"]
Weights = tuple[float, ...] | Literal["auto"] | dict | None  # a dict: as of tasks.ClassWeights


def check(low: float = 0.0, high: float = float("inf"), **values: float):
    """ConfigError unless every value lies in [low, high]."""
    for name, value in values.items():
        if not low <= value <= high:
            bound = f"{low:g} to {high:g}" if high < float("inf") else f"at least {low:g}"
            raise ConfigError(f"{name}={value} is out of range",
                              where=f"config.loss.{name}", fix=f"use {bound}")


def per_output(values, like, name: str = "class_weights"):
    """Numbers from a config, one for each output -> [1,K] in the dtype of `like` f[B,K]."""
    if isinstance(values, str):
        raise ConfigError(f"{name}={values!r} was not replaced by numbers",
                          where=f"config.loss.{name}", fix="give one number per output")
    if len(values) != like.shape[-1] or not min(values) >= 0:
        raise ConfigError(f"there are {len(values)} {name} for {like.shape[-1]} outputs"
                          if len(values) != like.shape[-1] else f"{name}={values} are not valid",
                          where=f"config.loss.{name}",
                          fix=f"give {like.shape[-1]} numbers of at least 0, or 'auto'")
    return jnp.asarray(values, like.dtype)[None]


def weighted(targets, class_weights: Weights):
    """targets f[B,K], each class times its weight."""
    return targets if class_weights is None else targets * per_output(class_weights, targets)


def smoothed(targets, smoothing: float):
    """A share `smoothing` of each row is spread over the classes."""
    check(0, 1, smoothing=smoothing)
    return optax.smooth_labels(targets, smoothing) if smoothing else targets


def halved(targets, smoothing: float):
    """Each target of 0 or 1 is moved towards one half."""
    check(0, 1, smoothing=smoothing)
    return targets * (1 - smoothing) + smoothing / 2 if smoothing else targets


def positive_weight(targets, class_weights: Weights):
    """f[B,K] or 1: the factor of each target's term, w if the target is 1 and 1 if it is 0."""
    if class_weights is None:
        return 1
    return 1 + (per_output(class_weights, targets) - 1) * targets


def over_classes(terms, reduce: Reduce):
    """[B,K] -> [B]."""
    return terms.sum(-1) if reduce == "sum" else terms.mean(-1)


def power(base, exponent: float):
    """base ** exponent for base >= 0, whose gradient is finite at 0 for every exponent >= 0."""
    if exponent == 0:
        return jnp.ones_like(base)
    return jnp.maximum(base, jnp.finfo(base.dtype).tiny) ** exponent
