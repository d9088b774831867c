"""For each class the probability threshold with the best F-score."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from imgcls_jax.errors import ConfigError
from imgcls_jax.evaluators import EVALUATORS, Parts, _gather
from imgcls_jax.registry import Positive


@EVALUATORS.register(features=True)
def thresholds(parts: Parts, *, fit: str = "", beta: Positive = 1.0):
    """For each class the probability threshold with the best F-score.

    (variables) -> `f1_macro` at a threshold of 1/2, `f1_macro_tuned` at the `thresholds`, f64[K] (K
    is 1 for a binary task). Each maximises the F-beta of its class over the split `fit`; without
    one, over every second example, beginning with the first, and the others are reported. A
    threshold lies midway between two probabilities; a class without an example there keeps 1/2.
    `imgcls predict --threshold=NAME` uses them, NAME being the name of the evaluation. For binary
    and multilabel tasks.
    """
    if parts.task.kind == "multiclass":
        raise ConfigError("a multiclass model has no thresholds", where="config.evals",
                          fix="leave it out")
    if not beta > 0:
        raise ConfigError(f"beta={beta} is not above 0",
                          where="config.evals", fix="use a number above 0")

    @jax.jit
    def compute(variables, batch):
        logits = parts.predict(variables, batch["image"])
        return {"chances": jax.nn.sigmoid(logits.astype(jnp.float32)),
                "right": parts.task.targets(batch["label"]) > 0.5}

    def collect(variables, split):
        rows = _gather.over(parts.batches(split), functools.partial(compute, variables))
        return rows["chances"].astype(np.float64), rows["right"]

    def evaluate(variables) -> dict:
        fitted, (chances, right) = _gather.fitted_apart(
            functools.partial(collect, variables), fit)
        found = np.array([best(*columns, beta) for columns in zip(
            fitted[0].T, fitted[1].T, strict=True)])
        occurs = right.any(0)

        def macro(limits):
            if not np.isfinite(limits).all() or not np.isfinite(chances).all():
                return math.nan
            scores = f_beta(chances >= limits, right, 1.0)
            return float(scores[occurs].mean()) if occurs.any() else float("nan")

        return {"f1_macro": macro(0.5), "f1_macro_tuned": macro(found), "thresholds": found}

    return evaluate


def f_beta(said: np.ndarray, right: np.ndarray, beta: float) -> np.ndarray:
    """F-beta of each column of bool[N,K], 0 without a true positive."""
    both = (said & right).sum(0)
    return (1 + beta**2) * both / np.maximum(said.sum(0) + beta**2 * right.sum(0), 1)


def best(chances: np.ndarray, right: np.ndarray, beta: float) -> float:
    """The threshold of probabilities f64[N] with the largest F-beta; the highest if equal. NaN if
    one of them is not finite."""
    if not np.isfinite(chances).all():
        return math.nan
    if not right.any():
        return 0.5
    order = np.argsort(-chances, kind="stable")
    chances, right = chances[order], right[order]
    both, said = np.cumsum(right), np.arange(1, len(right) + 1)
    scores = (1 + beta**2) * both / (said + beta**2 * right.sum())
    scores[:-1][chances[:-1] == chances[1:]] = -1  # no threshold lies between equal ones
    last = int(scores.argmax())
    below = chances[last + 1] if last + 1 < len(chances) else 0.0
    return float((chances[last] + below) / 2)
