"""Precision, recall and F1 of every class by its name."""

import dataclasses

from imgcls_jax.errors import ConfigError
from imgcls_jax.evaluators import EVALUATORS, Parts
from imgcls_jax.evaluators.classification import classification
from imgcls_jax.metrics.f1 import f1


@EVALUATORS.register(features=True)
def per_class(parts: Parts, *, threshold: float = 0.5):
    """Precision, recall and F1 of every class by its name.

    (variables) -> "recall/cat", "precision/cat", "f1/cat" and so on, computed as by the metric
    `f1`. For logs and for config.checkpoint.best; for many classes the arrays of `f1` are handier.
    """
    task = parts.task
    if task.kind == "binary":
        raise ConfigError("per_class is not for a binary task", where="config.evals",
                          fix="use the metric f1, which is that of class 1")
    metric = {"f1": f1(task.kind, average=(), threshold=threshold)}
    inner = classification(dataclasses.replace(
        parts, task=dataclasses.replace(task, metrics=metric)))

    def evaluate(variables, *program) -> dict:
        found = inner(variables, *program)
        return {f"{name}/{of}": float(value) for name in ("recall", "precision", "f1")
                for of, value in zip(task.classes, found[f"{name}_per_class"], strict=True)}

    evaluate.program = inner.program
    return evaluate
