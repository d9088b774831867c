"""Correct decisions at a probability threshold of 1/2."""

from imgcls_jax.metrics import METRICS
from imgcls_jax.types import Metric


@METRICS.register(tasks=("binary", "multilabel"))
def decisions(kind: str) -> Metric:
    """The share of correct decisions (yes: a probability above 1/2) over examples and outputs; and
    `exact`, of examples with all decisions correct. Soft targets are rounded. NaN is wrong."""
    def update(logits, targets, mask):
        # A comparison with NaN is false: it must not be taken for a "no".
        right = ((logits > 0) == (targets > 0.5)) & (logits == logits)
        return {"decided": (right.mean(-1) * mask).sum(), "exact": (right.all(-1) * mask).sum(),
                "seen": mask.sum()}

    def finish(sums):
        seen = max(sums["seen"], 1)
        found = {"decisions": float(sums["decided"] / seen)}
        return found | ({"exact": float(sums["exact"] / seen)} if kind == "multilabel" else {})

    return Metric(update, finish)
