"""Retrieval of examples of the same class by their features."""

import numpy as np

from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.evaluators import EVALUATORS, Parts, _features
from imgcls_jax.registry import Count


@EVALUATORS.register(features=True)
def retrieval(parts: Parts, *, k: tuple[Count, ...] = (1, 5, 10)):
    """Recall at k and mAP at R when searching a split for examples of the same class.

    (variables) -> `recall1` and so on, and `map_at_r`: each example is a query for the others of
    its class in the split, ranked by the cosine similarity of features. recallK: whether one of
    them is among the first K. map_at_r: the precisions after each hit among the first R, summed and
    divided by R, R being their number (arXiv 2003.08505, section 3.2). `left_out` counts the
    examples that are alone in their class and so are not queries.
    """
    collect = _features.collector(parts)
    if not k or min(k) < 1:
        raise ConfigError(f"k={k} is not valid",
                          where="config.evals", fix="use numbers of 1 or more")

    def evaluate(variables) -> dict:
        features, labels = collect(variables)
        features = _features.unit(features)
        wanted = np.bincount(labels)[labels] - 1
        if not wanted.any():
            raise DataError("every example is alone in its class", where="config.evals",
                            fix="evaluate on a split with several examples of a class")
        count = min(max(*k, wanted.max()), len(labels))
        recalls, precisions, first = {n: [] for n in k}, [], 0
        for _, index in _features.nearest(features, features, count, others=True):
            rows = slice(first, first + len(index))
            first += len(index)
            hit, asked = labels[index] == labels[rows, None], wanted[rows]
            hit &= index != np.arange(rows.start, rows.stop)[:, None]  # itself, where count = N
            for n in k:
                recalls[n].append(hit[:, :n].any(1)[asked > 0])
            place = np.arange(1, count + 1)
            within = hit & (place <= asked[:, None])
            precisions.append(((hit.cumsum(1) / place * within).sum(1) / np.maximum(asked, 1))[
                asked > 0])
        found = {f"recall{n}": float(np.concatenate(recalls[n]).mean()) for n in k}
        return {**found, "map_at_r": float(np.concatenate(precisions).mean()),
                "left_out": float((wanted == 0).sum())}

    return evaluate
