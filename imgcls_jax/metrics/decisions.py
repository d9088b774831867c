"""Correct decisions at a probability threshold of 1/2."""

from imgcls_jax.metrics import METRICS
from imgcls_jax.types import Metric


@METRICS.register(tasks=("binary", "multilabel"))
def decisions(kind: str) -> Metric:
    """Correct decisions (yes: a probability above 1/2).

    `accuracy`, the share of examples, of a binary task. Multilabel: `label_accuracy`, the share
    over examples and labels, and `exact`, of examples with all labels correct. Soft targets are
    rounded. NaN is wrong.
    """
    def update(logits, targets, mask):
        # A comparison with NaN is false: it must not be taken for a "no".
        right = ((logits > 0) == (targets > 0.5)) & (logits == logits)
        return {"decided": (right.mean(-1) * mask).sum(), "exact": (right.all(-1) * mask).sum(),
                "seen": mask.sum()}

    def finish(sums):
        seen = max(sums["seen"], 1)
        share = float(sums["decided"] / seen)
        return ({"accuracy": share} if kind == "binary" else
                {"label_accuracy": share, "exact": float(sums["exact"] / seen)})

    return Metric(update, finish)
