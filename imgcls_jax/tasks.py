"""The three tasks, and what labels, logits and probabilities mean in each."""

import functools
from collections.abc import Callable, Mapping

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


def automatic(name: str, kind: str, found: np.ndarray, total: int) -> tuple[float, ...]:
    """What "auto" means for an argument of a loss, given the examples of each class.

    prior: the share of each class. class_weights for multiclass: n / (K n_k), scikit-learn's
    "balanced"; for the other tasks negatives / positives of each output.
    """
    if name == "prior":
        values = found / total
    elif kind == "multiclass":
        values = total / (len(found) * found)
    else:
        values = (total - found) / found
        values = values[1:] if kind == "binary" else values
    return tuple(map(float, values))
