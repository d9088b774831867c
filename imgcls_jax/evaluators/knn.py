"""Classification by the nearest training examples."""

import jax
import numpy as np

from imgcls_jax.errors import ConfigError
from imgcls_jax.evaluators import EVALUATORS, Parts, _features
from imgcls_jax.evaluators._measure import measure
from imgcls_jax.registry import Count, Positive


@EVALUATORS.register(features=True)
def knn(parts: Parts, *, train: str = "train", k: Count = 20, temperature: Positive = 0.07):
    """Classification by a vote of the k nearest training examples.

    (variables) -> the task's metrics. Nearest by the cosine similarity of features; a vote counts
    exp(cosine / temperature) (arXiv 1805.01978, section 3.4, as evaluated by DINO). The same with
    equal votes has "majority_" before its names.
    """
    collect, classes = _features.collector(parts), parts.task.outputs
    if k < 1 or temperature <= 0:
        raise ConfigError(f"k={k} or temperature={temperature} is not valid", where="config.evals",
                          fix="use k of 1 or more and a temperature above 0")

    def evaluate(variables) -> dict:
        bank, labels = collect(variables, train)
        queries, truth = collect(variables)
        votes = {"": [], "majority_": []}
        for cosine, index in _features.nearest(_features.unit(queries), _features.unit(bank),
                                               min(k, len(bank))):
            heavier = np.exp((cosine - cosine[:, :1]) / temperature)
            for name, weights in (("", heavier), ("majority_", np.ones_like(heavier))):
                counts = np.zeros((len(index), classes))
                np.add.at(counts, (np.arange(len(index))[:, None], labels[index]), weights)
                votes[name].append(counts / counts.sum(1, keepdims=True))
        targets = np.asarray(jax.device_get(parts.task.targets(truth)))
        found = {}
        for name, shares in votes.items():
            # Logits of the shares of votes; those of a class without a vote must stay finite.
            logits = np.log(np.maximum(np.concatenate(shares), 1e-12))
            found |= {name + key: value for key, value in
                      measure(parts.task.metrics, logits, targets).items()}
        return found

    return evaluate
