"""Verification by the cosine similarity of features: whether two images show the same class."""

from pathlib import Path

import numpy as np

from imgcls_jax import untrusted
from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.evaluators import EVALUATORS, Parts, _features
from imgcls_jax.registry import Count


@EVALUATORS.register()
def verification(parts: Parts, *, pairs: str = "drawn", count: Count = 6000, folds: Count = 10,
                 far: tuple[float, ...] = (1e-3, 1e-2), seed: int = 0):
    """Verification, as of faces: accuracy, ROC, TAR at FAR, EER over pairs of images.

    (variables) -> `accuracy`, `accuracy_std`, `auc`, `eer` and `tar_at_0.001` over pairs of the
    split, and the ROC curve as arrays `false_accepts`, `true_accepts`. pairs: "drawn": `count`
    pairs drawn by the seed, half of them of one class. "adjacent": examples 2i and 2i + 1, as in
    the splits `pairs` of the dataset lfw. Otherwise a file with a line `i j same` for each pair:
    the numbers of the examples in the split, from 0, and 1 for the same class, else 0. accuracy:
    of each fold, with the threshold that is best on the others; a fold is consecutive pairs (LFW,
    Huang et al. 2007, View 2). tar_at_F: the share of same pairs that is accepted when at most a
    share F of the others is accepted. eer: the error rate at which as many are falsely rejected as
    falsely accepted.
    """
    collect = _features.collector(parts)
    if count < 2 or folds < 2 or not all(0 < share < 1 for share in far):
        raise ConfigError(f"count={count}, folds={folds}, far={far} are not valid",
                          where="config.evals",
                          fix="use 2 pairs and folds or more, and far between 0 and 1")

    def evaluate(variables) -> dict:
        from sklearn.metrics import auc, roc_curve

        features, labels = collect(variables)
        features = _features.unit(features.astype(np.float64))
        first, second, same = _pairs(pairs, labels, count, seed)
        if len(same) < folds or same.all() or not same.any():
            raise DataError(f"there are {same.sum()} pairs of one class and {(~same).sum()} others",
                            where="config.evals", fix="give pairs of both kinds")
        cosine = (features[first] * features[second]).sum(1)
        false, true, _ = roc_curve(same, cosine, drop_intermediate=False)
        accuracies = []
        for fold in np.array_split(np.arange(len(same)), folds):
            others = np.delete(np.arange(len(same)), fold)
            accepted = cosine[fold] > best_threshold(cosine[others], same[others])
            accuracies.append((accepted == same[fold]).mean())
        return {"accuracy": float(np.mean(accuracies)), "accuracy_std": float(np.std(accuracies)),
                "auc": float(auc(false, true)),
                "eer": float(np.interp(0, false + true - 1, false)),
                **{f"tar_at_{share:g}": float(true[false <= share].max()) for share in far},
                "false_accepts": false, "true_accepts": true}

    return evaluate


def best_threshold(scores: np.ndarray, same: np.ndarray) -> float:
    """The threshold that decides most pairs correctly, "same" being a score above it; the largest
    if several do. It lies midway between two scores."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    gained = np.concatenate([[0], np.cumsum(np.where(same[order], 1, -1))])
    bounds = np.concatenate([[np.inf], (ranked[:-1] + ranked[1:]) / 2, [-np.inf]])
    cut = np.concatenate([[True], ranked[:-1] > ranked[1:], [True]])  # not between equal ones
    return float(bounds[np.where(cut, gained, gained.min() - 1).argmax()])


def _pairs(source: str, labels, count: int, seed: int):
    """(first i64[P], second i64[P], same bool[P])."""
    if source == "adjacent":
        first = np.arange(0, len(labels) - 1, 2)
        return first, first + 1, labels[first] == labels[first + 1]
    if source == "drawn":
        return _drawn(labels, count, seed)
    try:
        with untrusted.opened(Path(source).expanduser()) as file:
            rows = np.loadtxt(file, dtype=np.int64, ndmin=2)
    except (OSError, ValueError) as error:
        raise DataError(f"the list of pairs cannot be read: {error}", where=source,
                        fix="name a file with lines `i j same`, or 'drawn' or 'adjacent'"
                        ) from error
    good = rows.shape[1] == 3 and rows.min(initial=0) >= 0 and rows[:, 2].max(initial=0) <= 1
    if not good or rows[:, :2].max(initial=0) >= len(labels):
        raise DataError(f"a line is not two numbers below {len(labels)} and 0 or 1",
                        where=source, fix="write `i j same`, examples counted from 0")
    return rows[:, 0], rows[:, 1], rows[:, 2] == 1


def _drawn(labels, count: int, seed: int):
    """Pairs in random order, so that every fold has both kinds."""
    rng = np.random.default_rng(seed)
    order = np.argsort(labels, kind="stable")
    begin = np.searchsorted(labels[order], labels[order])
    size = np.bincount(labels)[labels[order]]
    place, half = np.arange(len(labels)), count // 2

    def partners(able, offset, length):
        """For each chosen place another one, in a circle of `length` that starts at `offset`."""
        if not able.any():
            raise DataError("the split has no pairs of one class, or none of two",
                            where="config.evals",
                            fix="evaluate on a split with several examples of several classes")
        chosen = rng.choice(place[able], half)
        return chosen, offset(chosen, rng.integers(0, length[chosen]))

    a, b = partners(size > 1, lambda at, draw: begin[at] + (at - begin[at] + 1 + draw) % size[at],
                    size - 1)
    c, d = partners(size < len(labels),
                    lambda at, draw: (begin[at] + size[at] + draw) % len(labels),
                    len(labels) - size)
    mixed = rng.permutation(2 * half)
    first, second = (order[np.concatenate(pair)][mixed] for pair in ((a, c), (b, d)))
    return first, second, labels[first] == labels[second]
