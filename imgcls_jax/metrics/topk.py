"""Top-k accuracy."""

import jax.numpy as jnp

from imgcls_jax.metrics import METRICS
from imgcls_jax.registry import Count
from imgcls_jax.types import Metric


@METRICS.register(tasks=("multiclass",))
def topk(kind: str, *, k: tuple[Count, ...] | None = None) -> Metric:
    """The share of examples whose target class is among the k largest logits; by default k is 1,
    and also 5 from ten classes on.

    The target class of soft targets is the largest; if there are several valid labels, all equal,
    any of them counts, and examples without one are left out (ReaL, arXiv 2006.07159). Of equal
    logits the lower index comes first, as in a stable descending sort; a row with a NaN counts as
    wrong. A k above the number of classes is left out.
    """
    wanted = k or (1, 5)

    def update(logits, targets, mask):
        classes = logits.shape[-1]
        largest = targets.max(-1, keepdims=True)
        valid = targets == largest
        own = jnp.where(valid, logits, -jnp.inf).max(-1, keepdims=True)
        label = (valid & (logits == own)).argmax(-1)[:, None]
        mask = mask * (largest[:, 0] > 0)
        index = jnp.arange(classes)[None]
        ahead = (logits > own) | ((logits == own) & (index < label))
        rank = ahead.sum(-1)
        # A comparison with NaN is false: without this a diverged model would always be correct.
        rank = jnp.where(jnp.isnan(logits).any(-1), classes, rank)
        sums = {f"top{n}": ((rank < n) * mask).sum() for n in wanted
                if n <= classes and (k or n == 1 or classes >= 10)}
        return {**sums, "seen": mask.sum()}

    def finish(sums):
        return {name: float(sums[name] / max(sums["seen"], 1))
                for name in (f"top{n}" for n in wanted) if name in sums}

    return Metric(update, finish)
