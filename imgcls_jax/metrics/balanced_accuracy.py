"""Balanced accuracy: every class counts alike."""

import numpy as np

from imgcls_jax.metrics import METRICS
from imgcls_jax.metrics._decisions import counter, share
from imgcls_jax.types import Metric


@METRICS.register(tasks=("binary", "multiclass"))
def balanced_accuracy(kind: str, *, threshold: float = 0.5) -> Metric:
    """The mean accuracy within the classes that occur, and the array `accuracy_per_class`.

    A class that does not occur is NaN in the array. (A macro recall, of `f1`, counts it as 0.)
    """
    update, read = counter(kind, threshold)

    def finish(sums):
        counts = read(sums)
        hits, true = counts["hits"], counts["true"]
        if kind == "binary":  # what is neither said nor true is a hit of class 0
            hits = np.append(counts["seen"] - counts["said"] - true + hits, hits)
            true = np.append(counts["seen"] - true, true)
        values = np.where(true > 0, share(hits, true), np.nan)
        mean = np.nanmean(values) if (true > 0).any() else np.nan
        return {"balanced_accuracy": float(mean), "accuracy_per_class": values}

    return Metric(update, finish)
