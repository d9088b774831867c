"""How well probabilities match frequencies: calibration errors, Brier score, likelihood."""

import jax
import jax.numpy as jnp
import numpy as np

from imgcls_jax.errors import ConfigError
from imgcls_jax.metrics import METRICS
from imgcls_jax.metrics._decisions import decide
from imgcls_jax.registry import Count
from imgcls_jax.types import Metric


@METRICS.register()
def calibration(kind: str, *, bins: Count = 15) -> Metric:
    """Calibration errors, Brier score and negative log-likelihood.

    `ece`, `ece_mass`, `mce`, `brier` and `nll` (nats). ece: the mean distance of confidence and
    accuracy over bins of equal width (arXiv 1706.04599, equation 3), open at the lower end; mce:
    the largest (equation 5). ece_mass: over bins with equally many examples (arXiv 1904.01685),
    equal confidences in one bin. Multiclass: for the largest probability; brier is the squared
    distance of all probabilities, from 0 to 2. Binary and multilabel: for the probability of "yes",
    and brier and nll are means over outputs. Arrays by bin of equal width:
    `reliability_confidence`, `reliability_accuracy` (NaN if the bin is empty), `reliability_count`.
    NaN logits make everything NaN.
    """
    if bins < 1:
        raise ConfigError(f"bins={bins} is too small", where="metrics.bins", fix="use 1 or more")

    def rows(logits, targets):
        if kind == "multiclass":
            known = targets.sum(-1, keepdims=True)
            said, true, _ = decide(kind, logits, targets)
            targets = targets / jnp.where(known > 0, known, 1)  # of several valid labels
            log = jax.nn.log_softmax(logits, -1)
            chances = jnp.exp(log)
            return {"confidence": chances.max(-1), "right": (said & true).any(-1),
                    "known": known[:, 0] > 0, "brier": ((chances - targets)**2).sum(-1),
                    "nll": -jnp.where(targets > 0, targets * log, 0).sum(-1)}
        chances = jax.nn.sigmoid(logits)
        # log(1 - p) is log_sigmoid(-logit): no cancellation.
        nll = -(targets * jax.nn.log_sigmoid(logits) + (1 - targets) * jax.nn.log_sigmoid(-logits))
        return {"confidence": chances, "right": targets > 0.5, "brier": (chances - targets)**2,
                "known": jnp.ones(logits.shape, bool), "nll": nll}

    def finish(rows):
        known = rows["known"].ravel()
        confidence, right, brier, nll = (
            rows[name].ravel()[known].astype(np.float64)
            for name in ("confidence", "right", "brier", "nll"))
        width = np.ceil(np.nan_to_num(confidence, nan=1.0) * bins).astype(int) - 1
        count, mean, accuracy = _by_bin(np.maximum(width, 0), bins, confidence, right)
        distance = np.abs(mean - accuracy)[count > 0]
        # The rank of the first of equal ones, so that their order does not matter.
        first = np.searchsorted(np.sort(confidence), confidence)
        mass = _by_bin(first * bins // max(len(first), 1), bins, confidence, right)
        return {"ece": _mean(distance, count), "ece_mass": _mean(np.abs(mass[1] - mass[2])[
                    mass[0] > 0], mass[0]),
                "mce": float(distance.max(initial=0.0)), "brier": float(brier.mean()),
                "nll": float(nll.mean()), "reliability_count": count,
                "reliability_confidence": mean, "reliability_accuracy": accuracy}

    return Metric(None, finish, rows)


def _by_bin(index, bins: int, confidence, right):
    """(examples, mean confidence, share of correct ones) [bins], NaN for an empty bin."""
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(index, confidence, bins) / count
        accuracy = np.bincount(index, right, bins) / count
    return count, mean, accuracy


def _mean(distance, count) -> float:
    """The mean distance over bins, weighted by their examples; empty bins are left out."""
    weights = count[count > 0]
    return float((distance * weights).sum() / weights.sum())
