"""The area under the ROC curve."""

from typing import Literal

from imgcls_jax.metrics import METRICS, _ranking
from imgcls_jax.types import Metric


@METRICS.register()
def roc_auc(kind: str, *, average: tuple[Literal["macro", "micro", "weighted"], ...] =
            ("macro",)) -> Metric:
    """The area under the ROC curve.

    The probability that a positive example has a higher score than a negative one; ties count half.
    Multiclass is one class against the rest, by log-softmax. Binary gives `roc_auc`; the others
    `roc_auc_macro` and so on, over the classes with both positive and negative examples.
    `roc_auc_left_out` counts the other classes; `roc_auc_per_class` is an array.
    """
    def finish(rows):
        from sklearn.metrics import roc_auc_score

        return _ranking.averages("roc_auc", kind, rows, average, roc_auc_score,
                                 lambda true: true.any() and not true.all())

    return Metric(None, finish, _ranking.rows(kind))
