"""config.task, config.loss and the metrics."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from imgcls_jax import tasks
from imgcls_jax.assembly.network import tracing
from imgcls_jax.data import feed
from imgcls_jax.errors import ConfigError
from imgcls_jax.losses import LOSSES
from imgcls_jax.metrics import METRICS
from imgcls_jax.registry import bind
from imgcls_jax.types import Metric, Task


def make(config: Mapping, data: feed.Feed) -> tuple[Task, Task]:
    """config.task and config.loss, for the classes of the data: as evaluated, and as trained on,
    where a batch of weighted examples may count by its weights."""
    kind, source = config["task"], data.source
    tasks.check(kind, source)
    loss, trained = _loss(config["loss"], kind, data)
    rows = jax.ShapeDtypeStruct((2, tasks.outputs(kind, len(source.classes))), jnp.float32)
    with tracing("config.loss"):
        losses = jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(loss, rows, rows))
    if losses != (2,):  # a mean would be broadcast, and count padded rows
        raise ConfigError(f"{config['loss']['name']} gives {losses} for 2 examples",
                          where="config.loss", fix="return one loss per example, f32[B]")
    task = tasks.make(kind, source.classes, loss,
                      metrics(({"name": tasks.METRICS[kind]},), kind, "metrics"))
    return task, dataclasses.replace(task, loss=trained)


PER_OUTPUT = ("class_weights", "prior")  # arguments of losses: a number for each output, or "auto"


def _loss(choice: Mapping, kind: str, data: feed.Feed) -> tuple[Callable, Callable]:
    """config.loss as evaluated and as trained on, with what is "auto" counted in the labels of
    training."""
    loss = LOSSES.bind(choice, "config.loss")
    facts = LOSSES.facts(choice["name"])
    suited = facts["tasks"]
    if kind not in suited:
        fitting = [name for name in LOSSES.names() if kind in LOSSES.facts(name)["tasks"]]
        raise ConfigError(f"{choice['name']} is for {' and '.join(suited)} tasks, not {kind}",
                          where="config.loss.name", fix=f"use one of {fitting}")
    parameters = inspect.signature(loss).parameters
    given = {name: parameters[name].default for name in PER_OUTPUT if name in parameters}
    counted = functools.cache(lambda where: tasks.counts(data.labels(where), data.source.classes,
                                                         where))
    if given.get("prior") == "auto":
        loss = functools.partial(loss, prior=tasks.prior(*counted("config.loss.prior")))
    weights, where = given.get("class_weights"), "config.loss.class_weights"
    if weights == "auto":
        rule = tasks.automatic(kind)
    elif isinstance(weights, Mapping):
        rule = bind(tasks.ClassWeights, weights, where)()
    else:
        return loss, loss
    by_weights = rule.mean == "weights" or (rule.mean is None and facts.get("scaled"))
    if by_weights and not facts.get("scaled"):
        raise ConfigError(f"the mean of {choice['name']} is not over weights: they are factors of "
                          "its positive terms", where=f"{where}.mean", fix="leave it out")
    numbers = (rule.counted(kind, *counted(where)) if isinstance(rule.weights, str) else
               rule.counted(kind, np.zeros(0), 0))
    loss = functools.partial(loss, class_weights=numbers)
    return loss, tasks.over_weights(loss, numbers) if by_weights else loss


def metrics(choices, kind: str, where: str) -> dict[str, Metric]:
    """Choices of metrics for a kind of task -> the metrics, by place and name."""
    found = {}
    for i, choice in enumerate(choices):
        make = METRICS.bind(choice, f"{where}[{i}]")
        tasks = METRICS.facts(choice["name"]).get("tasks", (kind,))
        if kind not in tasks:
            raise ConfigError(f"{choice['name']} is for {' and '.join(tasks)} tasks, not {kind}",
                              where=f"{where}[{i}].name", fix=f"leave it out, or {_serving(kind)}")
        found[f"{i}_{choice['name']}"] = make(kind)
    return found


def _serving(kind: str) -> str:
    names = [name for name in METRICS.names()
             if kind in METRICS.facts(name).get("tasks", (kind,))]
    return f"use one of {names}"
