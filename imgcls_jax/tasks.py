"""The three tasks, and what labels, logits and probabilities mean in each."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from imgcls_jax.errors import ConfigError
from imgcls_jax.types import Metric, Source, Task

KINDS = ("binary", "multiclass", "multilabel")
METRICS = {"binary": "decisions", "multiclass": "topk", "multilabel": "decisions"}
"""The metric of training, and of evaluations that name none."""


def outputs(kind: str, classes: int) -> int:
    """How many logits a model has. A binary one has the logit of class 1 alone."""
    return 1 if kind == "binary" else classes


def make(kind: str, classes: tuple[str, ...], loss: Callable,
         metrics: Mapping[str, Metric]) -> Task:
    """The task of a kind. loss: (logits f32[B,outputs], targets of the same) -> f32[B]."""
    return Task(kind=kind, classes=classes, outputs=outputs(kind, len(classes)),
                targets=functools.partial(_targets, kind, len(classes)), loss=loss,
                probs=probabilities(kind), metrics=metrics)


def probabilities(kind: str) -> Callable:
    """logits f32[B,outputs] -> f32[B,K]; a row sums to 1 unless several classes may be true."""
    return {"binary": lambda logits: jnp.concatenate((jax.nn.sigmoid(-logits),
                                                      jax.nn.sigmoid(logits)), -1),
            "multiclass": lambda logits: jax.nn.softmax(logits, -1),
            "multilabel": jax.nn.sigmoid}[kind]


def _targets(kind: str, classes: int, label):
    """Labels i32[B] or f32[B,K] -> f32[B,outputs].

    In a multiclass task with several valid labels, each gets an equal share of the target.
    """
    if label.ndim == 1:
        dense = jax.nn.one_hot(label, classes)
    else:
        dense = label
        if kind == "multiclass":
            dense = label / jnp.maximum(label.sum(-1, keepdims=True), 1)
    return dense[:, 1:] if kind == "binary" else dense


def check(kind: str, source: Source, where: str = "config.task", evaluated: bool = False):
    """ConfigError unless the labels of a source suit the kind of task.

    evaluated: whether they are only evaluated on, where several labels may be valid.
    """
    if kind not in KINDS:
        raise ConfigError(f"task={kind!r} is unknown", where=where, fix=f"use one of {KINDS}")
    if kind == "multiclass" and len(source.classes) < 2:
        raise ConfigError(f"{source.name} has one class, {source.classes[0]!r}: there is nothing "
                          "to tell apart", where=where,
                          fix="add a class; for yes and no of one label, a multilabel table")
    if kind == "binary" and len(source.classes) != 2:
        raise ConfigError(f"the task is binary, {source.name} has {len(source.classes)} classes",
                          where=where, fix="use 'multiclass', or config.data.only to choose two")
    if source.kind == "multilabel" and kind != "multilabel" and not (
            evaluated and kind == "multiclass"):
        raise ConfigError(f"the labels of {source.name} are multilabel, but the task is {kind}",
                          where=where, fix="use 'multilabel'")


# ---- numbers of the loss that follow from the labels of training -----------------------------


def counts(labels: np.ndarray, classes: tuple[str, ...], where: str) -> tuple[np.ndarray, int]:
    """(examples of each class, examples) of labels i32[N] or f32[N,K]; no class may be empty."""
    found = (np.bincount(labels, minlength=len(classes)) if labels.ndim == 1 else
             (labels > 0.5).sum(0))
    if not found.all():
        raise ConfigError(f"class {classes[int(found.argmin())]!r} has no training example, so it "
                          "has no weight", where=where,
                          fix="give the numbers themselves, or leave the class out of the data")
    return found.astype(np.float64), len(labels)


def prior(found: np.ndarray, total: int) -> tuple[float, ...]:
    """The share of each class in the examples."""
    return tuple(map(float, found / total))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassWeights:
    """How rare classes count more, as config.loss.class_weights says it by a dict.

    weights: "balanced", n / (K n_k) for multiclass, scikit-learn's rule, and negatives / positives
    of each output for the other tasks; "effective", (1 - beta) / (1 - beta**n_k) scaled to a mean
    of 1 over the examples (arXiv 1901.05555, eq. 4); or the numbers themselves. cap: no weight is
    above cap times the smallest. mean: the loss of a batch in training is divided by the sum of its
    "weights", as by torch.nn.CrossEntropyLoss(weight), or by its number of "examples"; None:
    "weights" where they scale the loss of an example, as in softmax losses.
    """

    weights: Literal["balanced", "effective"] | tuple[float, ...] = "balanced"
    beta: float = 0.999
    cap: float | None = None
    mean: Literal["weights", "examples"] | None = None

    def __post_init__(self):
        where = "config.loss.class_weights"
        if not 0 <= self.beta < 1:
            raise ConfigError(f"beta={self.beta} is out of range", where=f"{where}.beta",
                              fix="use 0, no weights at all, to below 1, such as 0.999")
        if self.cap is not None and not self.cap >= 1:
            raise ConfigError(f"cap={self.cap} is below 1", where=f"{where}.cap",
                              fix="use 1 or more, such as 10")

    def counted(self, kind: str, found: np.ndarray, total: int) -> tuple[float, ...]:
        """The weight of each output, given the examples of each class of `total`."""
        if not isinstance(self.weights, str):
            values = np.array(self.weights, np.float64)
        elif kind != "multiclass":
            if self.weights == "effective":
                raise ConfigError("effective numbers are for multiclass tasks",
                                  where="config.loss.class_weights.weights", fix="use 'balanced'")
            values = (total - found) / found
            values = values[1:] if kind == "binary" else values
        elif self.weights == "balanced":
            values = total / (len(found) * found)
        else:
            values = (1 - self.beta) / (1 - self.beta**found)
            values *= total / (values * found).sum()
        if self.cap is not None:
            values = np.minimum(values, self.cap * values.min())
        return tuple(map(float, values))


def automatic(kind: str) -> ClassWeights:
    """What class_weights="auto" means. For multiclass the best of the rules that were measured on
    classes skewed 100 to 1 (experiments/sweeps/imbalance.md): without a cap, one example of a rare
    class decides what its batch learns."""
    return ClassWeights(cap=10.0 if kind == "multiclass" else None)


def over_weights(loss: Callable, class_weights: tuple[float, ...]) -> Callable:
    """A loss whose mean over a batch is that of `loss` divided by the mean weight of the batch.

    class_weights: those that scale the loss of an example, by its targets f[B,K].
    """
    def normalised(logits, targets):
        weights = targets @ jnp.asarray(class_weights, targets.dtype)
        # A batch of nothing but classes of weight 0 has no loss, not 0 / 0.
        return loss(logits, targets) / jnp.maximum(weights.mean(), 1e-12)

    return normalised
