"""Accuracy, with its confidence interval."""

from imgcls_jax.metrics import METRICS
from imgcls_jax.metrics._decisions import check_share, decide
from imgcls_jax.metrics._intervals import wilson
from imgcls_jax.types import Metric


@METRICS.register()
def accuracy(kind: str, *, threshold: float = 0.5, confidence: float = 0.95) -> Metric:
    """The share of correctly classified examples, with Wilson's interval.

    `accuracy`, `accuracy_low` and `accuracy_high`. Multiclass predicts the largest logit; binary
    and multilabel a probability above the threshold. All labels of a multilabel example must be
    correct (subset accuracy); the share of correct labels is `label_accuracy`, which is 1 minus
    the Hamming loss. A prediction from NaN is wrong.
    """
    check_share("threshold", threshold)
    check_share("confidence", confidence)
    exact, single = f"right@{threshold}", f"labels@{threshold}"

    def update(logits, targets, mask):
        said, true, known = decide(kind, logits, targets, threshold)
        right = said == true
        mask = mask * known
        return {exact: (right.all(-1) * mask).sum(), single: (right.sum(-1) * mask).sum(),
                "labels": mask.sum() * logits.shape[-1], "known": mask.sum()}

    def finish(sums):
        seen = float(sums["known"])
        low, high = wilson(float(sums[exact]), seen, confidence)
        found = {"accuracy": float(sums[exact]) / max(seen, 1), "accuracy_low": low,
                 "accuracy_high": high}
        if kind == "multilabel":
            found["label_accuracy"] = float(sums[single]) / max(float(sums["labels"]), 1)
        return found

    return Metric(update, finish)
