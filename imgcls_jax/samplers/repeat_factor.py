"""Repeats rare classes, as LVIS does."""

import numpy as np

from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Positive
from imgcls_jax.samplers import SAMPLERS, _rarest


@SAMPLERS.register()
def repeat_factor(labels: np.ndarray, classes: int, *, threshold: Positive) -> np.ndarray:
    """Repeats examples of rare classes (LVIS, arXiv 1908.03195, section 4).

    Those of a class with a share f of the examples come max(1, sqrt(threshold / f)) times per epoch
    on average; an epoch is longer than the split. An example with several labels counts as its
    rarest.
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold={threshold} is not above 0",
                          where="config.data.sampling.threshold",
                          fix="use a share of the examples above 0, such as 0.001")
    return _rarest.of_rarest(labels, classes, lambda count, total: np.maximum(
        1.0, np.sqrt(threshold * total / count)))
