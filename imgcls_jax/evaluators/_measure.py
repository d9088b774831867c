"""A task's metrics for logits that are already on the host."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from imgcls_jax.types import Metric

ROWS = 1024  # at a time on the device


def measure(metrics: Mapping[str, Metric], logits: np.ndarray, targets: np.ndarray) -> dict:
    """What each metric gives for logits and targets f32[N,K]."""
    result, parts = {}, range(0, len(logits), ROWS)
    for metric in metrics.values():
        total, kept = {}, []
        for first in parts:
            x, y = (jnp.asarray(leaf[first:first + ROWS], jnp.float32)
                    for leaf in (logits, targets))
            if metric.rows:
                kept.append(jax.device_get(metric.rows(x, y)))
                continue
            for name, value in metric.update(x, y, jnp.ones(len(x))).items():
                total[name] = total.get(name, 0.0) + np.asarray(value, np.float64)
        if metric.rows:
            total = jax.tree.map(lambda *leaves: np.concatenate(leaves), *kept)
        result |= metric.finish(total)
    return result
