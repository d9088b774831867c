"""Precision, recall and F1."""

from typing import Literal

from imgcls_jax.metrics import METRICS
from imgcls_jax.metrics._decisions import counter, share
from imgcls_jax.types import Metric


@METRICS.register()
def f1(kind: str, *, average: tuple[Literal["macro", "micro", "weighted"], ...] = ("macro",),
       threshold: float = 0.5) -> Metric:
    """Precision, recall and F1.

    Equal to scikit-learn's with zero_division=0. Multiclass predicts the largest logit, binary and
    multilabel a probability above the threshold. Binary gives `f1` and so on of class 1; the
    others give `f1_macro` and so on, and by class the array `f1_per_class`. A macro mean is over
    all classes of the task, also those that do not occur, as with scikit-learn's labels=range(K);
    weighted is by their true examples.
    """
    update, read = counter(kind, threshold)

    def scores(hits, said, true) -> dict:
        return {"precision": share(hits, said), "recall": share(hits, true),
                "f1": share(2 * hits, said + true)}

    def finish(sums):
        counts = read(sums)
        hits, said, true = (counts[name] for name in ("hits", "said", "true"))
        each = scores(hits, said, true)
        if kind == "binary":
            return {name: float(values[0]) for name, values in each.items()}
        means = {
            "macro": {name: values.mean() for name, values in each.items()},
            "micro": scores(hits.sum(), said.sum(), true.sum()),
            "weighted": {name: share((values * true).sum(), true.sum())
                         for name, values in each.items()}}
        return {**{f"{name}_{mean}": float(means[mean][name]) for mean in average for name in each},
                **{f"{name}_per_class": values for name, values in each.items()}}

    return Metric(update, finish)
