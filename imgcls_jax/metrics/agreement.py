"""Agreement beyond chance: Cohen's kappa and Matthews' correlation coefficient."""

import numpy as np

from imgcls_jax.metrics import METRICS
from imgcls_jax.metrics._decisions import counter
from imgcls_jax.types import Metric


@METRICS.register(tasks=("binary", "multiclass"))
def agreement(kind: str, *, threshold: float = 0.5) -> Metric:
    """Agreement beyond chance: Cohen's kappa and Matthews' correlation.

    `kappa` (Cohen 1960) and `mcc` (Gorodkin 2004, equation 8), 1 at best; 0 if they are 0 / 0, for
    example if only one class is true and predicted, where scikit-learn's kappa is NaN.
    """
    update, read = counter(kind, threshold)

    def finish(sums):
        counts = read(sums)
        seen, hits = counts["seen"], counts["hits"].sum()
        said, true = counts["said"], counts["true"]
        if kind == "binary":
            hits = seen - said[0] - true[0] + 2 * hits
            said, true = (np.append(each, seen - each) for each in (said, true))
        unsaid = seen - said.sum()  # rows with a NaN: counted as a further class, never true
        chance = (said * true).sum()
        spread = (seen**2 - (said**2).sum() - unsaid**2) * (seen**2 - (true**2).sum())
        beyond = hits * seen - chance
        return {"kappa": float(beyond / (seen**2 - chance)) if seen**2 > chance else 0.0,
                "mcc": float(beyond / np.sqrt(spread)) if spread > 0 else 0.0}

    return Metric(update, finish)
