"""Metrics: `(kind, *, ...) -> types.Metric`; kind: the task's, which defines what logits mean.

A metric that is only for some kinds declares them: `@METRICS.register(tasks=("multiclass",))`.
"""

from imgcls_jax.registry import Registry

METRICS = Registry("metric", __name__)
