"""Calibration before and after temperature scaling."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from imgcls_jax.evaluators import EVALUATORS, Parts, _gather
from imgcls_jax.evaluators._measure import measure
from imgcls_jax.metrics.calibration import calibration
from imgcls_jax.registry import Count

LIMIT = 5.0  # of the logarithm of the temperature


@EVALUATORS.register(features=True)
def temperature(parts: Parts, *, fit: str = "", bins: Count = 15):
    """Calibration before and after temperature scaling.

    (variables) -> the metric `calibration` of the logits; the same, with names ending in "_scaled",
    of logits / temperature; and the `temperature` (arXiv 1706.04599, section 4.2). It minimises the
    negative log-likelihood over the split `fit`; without one, over every second example, beginning
    with the first, and the others are reported.
    """
    metric = {"calibration": calibration(parts.task.kind, bins=bins)}

    @jax.jit
    def compute(variables, batch):
        return {"logits": parts.predict(variables, batch["image"]).astype(jnp.float32),
                "targets": parts.task.targets(batch["label"])}

    def collect(variables, split):
        rows = _gather.over(parts.batches(split), functools.partial(compute, variables))
        return rows["logits"], rows["targets"]

    def evaluate(variables) -> dict:
        fitted, (logits, targets) = _gather.fitted_apart(
            functools.partial(collect, variables), fit)
        found = fit_temperature(parts.task.kind, *fitted)
        scaled = measure(metric, logits / found, targets)
        return {"temperature": found, **measure(metric, logits, targets),
                **{f"{name}_scaled": value for name, value in scaled.items()}}

    return evaluate


def fit_temperature(kind: str, logits: np.ndarray, targets: np.ndarray) -> float:
    """What logits f32[N,K] are divided by for the least negative log-likelihood."""
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logits, targets = logits.astype(np.float64), targets.astype(np.float64)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        if kind == "multiclass":
            whole = targets.sum(1) * logsumexp(scaled, axis=1)
        else:
            whole = np.logaddexp(0, scaled).sum(1)
        return (whole - (targets * scaled).sum(1)).mean()

    return float(np.exp(minimize_scalar(loss, bounds=(-LIMIT, LIMIT), method="bounded",
                                        options={"xatol": 1e-7}).x))
