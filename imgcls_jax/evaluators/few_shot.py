"""Few-shot linear evaluation by least squares."""

import numpy as np

from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.evaluators import EVALUATORS, Parts, _features
from imgcls_jax.registry import Count, Positive

BIAS = 100.0  # a constant feature, so large that its weight is hardly regularised


@EVALUATORS.register(features=True)
def few_shot(parts: Parts, *, train: str = "train", shots: tuple[Count, ...] = (1, 5, 10, 25),
             l2: tuple[Positive, ...] = (1024.0,), seeds: Count = 3):
    """Accuracy of a linear classifier that is fitted to a few examples of each class.

    (variables) -> "10shot" and so on: least squares on features, with an l2 penalty, to targets of
    -1 and 1, from 10 (and so on) examples of each class of a split. As in big_vision's fewshot_lsr,
    features are standardised, and seed s draws the examples by numpy.random.default_rng(s). The
    results are means over the seeds, and "10shot_std"; with several l2, "10shot_l2_1024" for each.
    DataError if a class has too few examples.
    """
    collect, classes = _features.collector(parts), parts.task.outputs
    if min((*shots, seeds)) < 1 or min(l2) <= 0:
        raise ConfigError(f"shots={shots}, l2={l2}, seeds={seeds} are not valid",
                          where="config.evals",
                          fix="use shots and seeds of 1 or more, and l2 above 0")

    def evaluate(variables) -> dict:
        features, labels = collect(variables, train)
        queries, truth = collect(variables)
        _check_enough(labels, classes, max(shots), train)
        accuracy = np.zeros((len(shots), len(l2), seeds))
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            order = [rng.permutation(np.flatnonzero(labels == c)) for c in range(classes)]
            for i, count in enumerate(shots):
                chosen = np.concatenate([of_class[:count] for of_class in order])
                for j, scores in enumerate(_scores(features[chosen], labels[chosen], classes,
                                                   queries, l2)):
                    accuracy[i, j, seed] = (scores.argmax(1) == truth).mean()
        found = {}
        for i, count in enumerate(shots):
            for j, penalty in enumerate(l2):
                name = f"{count}shot" + (f"_l2_{penalty:g}" if len(l2) > 1 else "")
                found |= {name: float(accuracy[i, j].mean()),
                          f"{name}_std": float(accuracy[i, j].std())}
        return found

    return evaluate


def _check_enough(labels, classes: int, count: int, split: str):
    there = np.bincount(labels, minlength=classes)
    if there.min() < count:
        raise DataError(f"class {there.argmin()} has {there.min()} examples, fewer than "
                        f"{count} shots", where=f"split {split!r}",
                        fix="lower config.evals.NAME.shots")


def _scores(x, labels, classes: int, queries, l2: tuple[float, ...]):
    """Yields f64[Q,classes] for each l2; one decomposition serves all."""
    x, queries = x.astype(np.float64), queries.astype(np.float64)
    mean, std = x.mean(0), x.std(0) + 1e-5
    x, queries = (np.pad((rows - mean) / std, ((0, 0), (0, 1)), constant_values=BIAS)
                  for rows in (x, queries))
    y = 2.0 * np.eye(classes)[labels] - 1
    if len(x) >= x.shape[1]:  # (x'x + l2)^-1 x'y
        values, q = np.linalg.eigh(x.T @ x)
        left, right = queries @ q, q.T @ (x.T @ y)
    else:  # the same as x' (xx' + l2)^-1 y
        values, q = np.linalg.eigh(x @ x.T)
        left, right = queries @ (x.T @ q), q.T @ y
    for penalty in l2:
        yield left / (values + penalty) @ right
