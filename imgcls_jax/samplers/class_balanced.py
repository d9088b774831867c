"""Draws every class equally often."""

import numpy as np

from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import NotNegative
from imgcls_jax.samplers import SAMPLERS, _rarest


@SAMPLERS.register()
def class_balanced(labels: np.ndarray, classes: int, *, power: NotNegative = 1.0) -> np.ndarray:
    """Draws every class equally often; an epoch is as long as the split.

    power: a class with n examples is drawn in proportion to n ** (1 - power): 1 is balanced, 0.5
    the square-root sampling of arXiv 1805.00932, 0 the data as it is. An example with several
    labels counts as its rarest.
    """
    if not 0 <= power <= 1:
        raise ConfigError(f"power={power} is out of range", where="config.data.sampling.power",
                          fix="use 0 (as it is) to 1 (balanced)")
    rarest = _rarest.of_rarest(labels, classes, lambda count, total: count**-power)
    return rarest * (len(labels) / rarest.sum())
