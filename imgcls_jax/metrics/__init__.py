"""Metrics: `(kind, *, ...) -> types.Metric`; kind: that of the task, which says what logits mean.

A file that serves some kinds only says so: `@METRICS.register(tasks=("multiclass",))`.
"""

from imgcls_jax.registry import Registry

METRICS = Registry("metric", __name__)
