"""What logits decide, counted by class."""

import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np

from imgcls_jax.errors import ConfigError


def check_share(name: str, value: float):
    """ConfigError unless an argument lies between 0 and 1."""
    if not 0 < value < 1:
        raise ConfigError(f"{name}={value} is out of range", where=f"metrics.{name}",
                          fix="use a number between 0 and 1")


def decide(kind: str, logits, targets, threshold: float = 0.5):
    """(said bool[B,K], true bool[B,K], known bool[B]) of f32[B,K] each.

    said: the predicted class. Multiclass: that of the largest logit, the first if several are
    equal. Of several valid labels the predicted one counts as true, else the first; an example
    without a valid label is not known; a row with a NaN predicts nothing. Binary and multilabel:
    predicted if the probability is above the threshold; NaN counts as the wrong prediction.
    """
    if kind != "multiclass":
        least, true = math.log(threshold / (1 - threshold)), targets > 0.5
        said = jnp.where(jnp.isnan(logits), ~true, logits > least)
        return said, true, jnp.ones(len(logits), bool)
    index = jnp.arange(logits.shape[-1])[None]
    largest = targets.max(-1, keepdims=True)
    valid = (targets == largest) & (largest > 0)
    said = (logits.argmax(-1)[:, None] == index) & ~jnp.isnan(logits).any(-1, keepdims=True)
    first = valid & (valid.argmax(-1)[:, None] == index)
    true = jnp.where((said & valid).any(-1, keepdims=True), said, first)
    return said, true, largest[:, 0] > 0


def counter(kind: str, threshold: float) -> tuple[Callable, Callable]:
    """(update, read): a metric's update to counts by class, and Sums -> what it has counted.

    The latter is dict(hits, said, true: f64[K], seen: examples); hits: both said and true.
    """
    check_share("threshold", threshold)
    names = {name: f"{name}@{threshold}" for name in ("hits", "said", "true")}

    def update(logits, targets, mask):
        said, true, known = decide(kind, logits, targets, threshold)
        weight = (mask * known)[:, None]
        found = {"hits": said & true, "said": said, "true": true}
        return {**{names[name]: (value * weight).sum(0) for name, value in found.items()},
                "known": weight.sum()}

    def read(sums: Mapping) -> dict:
        found = {name: np.asarray(sums[key], np.float64) for name, key in names.items()}
        return {**found, "seen": float(sums["known"])}

    return update, read


def share(part, whole):
    """part / whole, and 0 if whole is 0, as scikit-learn's zero_division=0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
