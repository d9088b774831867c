"""Average precision, and its mean over the classes (mAP)."""

from typing import Literal

from imgcls_jax.metrics import METRICS, _ranking
from imgcls_jax.types import Metric


@METRICS.register()
def average_precision(kind: str, *, average: tuple[Literal["macro", "micro", "weighted"], ...] =
                      ("macro",)) -> Metric:
    """Average precision, and its mean over the classes (mAP).

    The area under the precision-recall curve by steps, as scikit-learn's average_precision_score;
    multiclass is one class against the rest, by log-softmax. Binary gives `average_precision`; the
    others `average_precision_macro` (mAP) and so on, over the classes that occur.
    `average_precision_left_out` counts the others; `average_precision_per_class` is an array.
    """
    def finish(rows):
        from sklearn.metrics import average_precision_score

        return _ranking.averages("average_precision", kind, rows, average,
                                 average_precision_score, lambda true: true.any())

    return Metric(None, finish, _ranking.rows(kind))
