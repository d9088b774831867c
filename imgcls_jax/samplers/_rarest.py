"""A factor for each example: that of its rarest class."""

from collections.abc import Callable

import numpy as np


def of_rarest(labels: np.ndarray, classes: int, factor: Callable) -> np.ndarray:
    """f64[N]: the largest of factor(examples of the class, N) over an example's classes.

    Examples without a label count as a further class.
    """
    if labels.ndim == 1:
        counts = np.bincount(labels, minlength=classes)
        return factor(np.maximum(counts, 1).astype(np.float64), len(labels))[labels]
    present = labels > 0
    without = ~present.any(1)
    counts = np.maximum(present.sum(0), 1).astype(np.float64)
    largest = np.where(present, factor(counts, len(labels)), 0.0).max(1)
    return np.where(without, factor(np.float64(max(without.sum(), 1)), len(labels)), largest)
