"""Scores of all examples, for metrics of how they are ordered."""

from collections.abc import Callable, Mapping

import jax
import numpy as np


def rows(kind: str) -> Callable:
    """A metric's `rows`: dict(score f32[B,K], true bool[B,K]).

    Scores are logits; for multiclass their log-softmax, which unlike probabilities do not all round
    to 1.
    """
    def of(logits, targets):
        if kind == "multiclass":
            logits = jax.nn.log_softmax(logits, -1)
            largest = targets.max(-1, keepdims=True)
            true = (targets == largest) & (largest > 0)
        else:
            true = targets > 0.5
        return {"score": logits, "true": true}

    return of


def averages(name: str, kind: str, rows: Mapping, average: tuple[str, ...], measure: Callable,
             suits: Callable) -> dict:
    """Means over the classes of measure(true bool[N], rank i64[N]) -> float.

    suits: bool[N] -> whether the measure is defined. Classes for which it is not are left out of
    the means and counted; if none is left, a mean is NaN. A score of NaN counts as the worst
    possible: lowest of all for a true example, highest of all for another.
    """
    score, true = rows["score"], np.asarray(rows["true"], bool)
    if kind == "multiclass":  # examples without a valid label
        score, true = score[true.any(1)], true[true.any(1)]
    # Ranks keep the order and the ties, over all classes; unlike scores they are finite.
    rank = np.unique(score, return_inverse=True)[1].reshape(score.shape)  # NaN is the largest
    rank = np.where(np.isnan(score) & true, -1, rank)

    def value(true, rank):
        return float(measure(true, rank)) if suits(true) else np.nan

    if kind == "binary":
        return {name: value(true[:, 0], rank[:, 0])}
    values = np.array([value(*column) for column in zip(true.T, rank.T, strict=True)])
    good = ~np.isnan(values)
    weights = {"macro": np.ones(len(values)), "weighted": true.sum(0)}
    means = {mean: (np.average(values[good], weights=weights[mean][good]) if good.any()
                    else np.nan) for mean in average if mean != "micro"}
    if "micro" in average:
        means["micro"] = value(true.ravel(), rank.ravel())
    return {**{f"{name}_{mean}": float(means[mean]) for mean in average},
            f"{name}_left_out": float((~good).sum()), f"{name}_per_class": values}
