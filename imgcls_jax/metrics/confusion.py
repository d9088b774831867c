"""The confusion matrix."""

import jax.numpy as jnp
import numpy as np

from imgcls_jax.metrics import METRICS
from imgcls_jax.metrics._decisions import check_share, counter, decide
from imgcls_jax.types import Metric

DENSE = 5000  # classes; above, i64[K,K] takes more than 200 MB


@METRICS.register()
def confusion(kind: str, *, threshold: float = 0.5) -> Metric:
    """The confusion matrix, an array.

    `confusion` counts by [true class, predicted class]. Binary: i64[2,2]. Multiclass: i64[K,K];
    above 5,000 classes only the pairs that occur, as `confusion_pairs` i64[N,2] of (true,
    predicted) and `confusion_counts` i64[N]. Multilabel: i64[K,2,2], by class. A multiclass row
    with a NaN predicts nothing and is left out.
    """
    check_share("threshold", threshold)
    if kind == "multilabel":
        return _by_class(threshold)

    # Two numbers per example are less to transfer than a matrix per batch.
    def rows(logits, targets):
        said, true, known = decide(kind, logits, targets, threshold)
        classes = logits.shape[-1]
        if kind == "binary":
            said, true = said[:, 0].astype(jnp.int32), true[:, 0].astype(jnp.int32)
        else:
            said = jnp.where(said.any(-1), said.argmax(-1), -1)
            true = jnp.where(known, true.argmax(-1), -1)
        return {"said": said, "true": true,
                "classes": jnp.full(len(logits), max(classes, 2), jnp.int32)}

    def finish(rows):
        classes = int(rows["classes"][0])
        decided = (rows["said"] >= 0) & (rows["true"] >= 0)
        true, said = (rows[name][decided].astype(np.int64) for name in ("true", "said"))
        if classes <= DENSE:
            counts = np.bincount(true * classes + said, minlength=classes**2)
            return {"confusion": counts.reshape(classes, classes)}
        pairs, counts = np.unique(np.stack([true, said], 1), axis=0, return_counts=True)
        return {"confusion_pairs": pairs, "confusion_counts": counts}

    return Metric(None, finish, rows)


def _by_class(threshold: float) -> Metric:
    update, read = counter("multilabel", threshold)

    def finish(sums):
        counts = read(sums)
        hits, said, true = (counts[name] for name in ("hits", "said", "true"))
        cells = [counts["seen"] - said - true + hits, said - hits, true - hits, hits]
        return {"confusion": np.stack(cells, -1).reshape(-1, 2, 2).round().astype(np.int64)}

    return Metric(update, finish)
