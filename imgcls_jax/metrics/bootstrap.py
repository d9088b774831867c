"""Bootstrap confidence intervals for a metric that is not a sum over examples."""

import functools
from typing import Annotated

import numpy as np

from imgcls_jax.errors import ConfigError
from imgcls_jax.metrics import METRICS
from imgcls_jax.metrics._decisions import check_share
from imgcls_jax.registry import Count
from imgcls_jax.types import Metric


@METRICS.register()
def bootstrap(kind: str, *, of: Annotated[functools.partial, METRICS], resamples: Count = 1000,
              confidence: float = 0.95, seed: int = 0) -> Metric:
    """Another metric, with bootstrap confidence intervals.

    `NAME_low` and `NAME_high` are percentiles over resamples of the examples (Efron and Tibshirani
    1993, chapter 13), without those that are NaN. of: the choice of a metric that needs the rows of
    all examples, such as dict(name="roc_auc"). It is computed `resamples` times.
    """
    check_share("confidence", confidence)
    name, inner = of.func.__name__, of(kind)
    if inner.rows is None:
        raise ConfigError(f"{name} is a sum, which bootstrap cannot resample", where="metrics.of",
                          fix="use topk_interval or accuracy, which include intervals")
    if kind not in METRICS.facts(name).get("tasks", (kind,)) or resamples < 1:
        raise ConfigError(f"{name} does not suit a {kind} task, or resamples={resamples} < 1",
                          where="metrics.of", fix="use a metric of this kind, and 1 or more")

    def finish(rows):
        found = inner.finish(rows)
        names = [key for key, value in found.items() if not isinstance(value, np.ndarray)]
        rng = np.random.default_rng(seed)
        size = len(next(iter(rows.values())))
        draws = []
        for _ in range(resamples):
            chosen = rng.integers(0, size, size)
            drawn = inner.finish({name: values[chosen] for name, values in rows.items()})
            draws.append([drawn[name] for name in names])
        outside = 100 * (1 - confidence) / 2
        ends = np.nanpercentile(np.array(draws), [outside, 100 - outside], axis=0)
        for end, values in zip(("low", "high"), ends, strict=True):
            found |= {f"{name}_{end}": float(value)
                      for name, value in zip(names, values, strict=True)}
        return found

    return Metric(None, finish, inner.rows)
