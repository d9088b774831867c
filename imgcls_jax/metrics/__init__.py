"""Metrics: `(*, ...) -> types.Metric`, whose `update` gives additive counts."""

from imgcls_jax.registry import Registry

METRICS = Registry("metric", __name__)
