"""A linear classifier on frozen features."""

import warnings

import jax
import numpy as np

from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.evaluators import EVALUATORS, Parts, _features
from imgcls_jax.evaluators._measure import measure
from imgcls_jax.registry import Count


@EVALUATORS.register(features=True)
def linear_probe(parts: Parts, *, train: str = "train",
                 l2: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
                 held_out: float = 0.2, steps: Count = 1000, seed: int = 0):
    """Logistic regression on frozen features.

    (variables) -> the task's metrics of a classifier fitted to the split `train`, and its `l2`. It
    minimises mean cross-entropy + l2 / 2 times the squared weights over standardised features, by
    L-BFGS (as in arXiv 2103.00020, appendix A.3). The l2 with the highest accuracy on a held-out
    part of the training split is chosen, the largest if several are equal; then the classifier is
    fitted to the whole split. The features are kept on the host: `train` may be a part of a split,
    such as "train[:10%]".
    """
    collect, classes = _features.collector(parts), parts.task.outputs
    if not l2 or min(l2) <= 0 or not 0 < held_out < 1 or steps < 1:
        raise ConfigError(f"l2={l2}, held_out={held_out}, steps={steps} are not valid",
                          where="config.evals",
                          fix="use l2 above 0, held_out between 0 and 1, steps of 1 or more")

    def fit(x, labels, penalty: float):
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        if len(np.unique(labels)) < 2:
            raise DataError("all examples are of one class", where=f"split {train!r}",
                            fix="name another part of the data as config.evals.NAME.train")
        with warnings.catch_warnings():  # too few `steps` is the user's choice
            warnings.simplefilter("ignore", ConvergenceWarning)
            return LogisticRegression(C=1 / (penalty * len(x)), max_iter=steps).fit(x, labels)

    def evaluate(variables) -> dict:
        x, labels = collect(variables, train)
        queries, truth = collect(variables)
        x, queries = x.astype(np.float64), queries.astype(np.float64)
        mean, std = x.mean(0), x.std(0) + 1e-5
        x, queries = (x - mean) / std, (queries - mean) / std
        chosen = max(l2)
        if len(l2) > 1:
            order = np.random.default_rng(seed).permutation(len(x))
            out, kept = np.split(order, [max(1, round(held_out * len(x)))])
            chosen = max(l2, key=lambda penalty: (
                fit(x[kept], labels[kept], penalty).score(x[out], labels[out]), penalty))
        model = fit(x, labels, chosen)
        logits = np.full((len(queries), classes), np.log(1e-12))  # of classes never seen
        logits[:, model.classes_] = model.predict_log_proba(queries)
        targets = np.asarray(jax.device_get(parts.task.targets(truth)))
        return {**measure(parts.task.metrics, logits, targets), "l2": float(chosen)}

    return evaluate
