"""config.task, config.loss and the metrics."""

import functools
import inspect
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from imgcls_jax import tasks
from imgcls_jax.assembly.network import tracing
from imgcls_jax.data import feed
from imgcls_jax.errors import ConfigError
from imgcls_jax.losses import LOSSES
from imgcls_jax.metrics import METRICS
from imgcls_jax.types import Metric, Task


def make(config: Mapping, data: feed.Feed) -> Task:
    """config.task and config.loss, for the classes of the data."""
    kind, source = config["task"], data.source
    tasks.check(kind, source)
    loss = _loss(config["loss"], kind, data)
    rows = jax.ShapeDtypeStruct((2, tasks.outputs(kind, len(source.classes))), jnp.float32)
    with tracing("config.loss"):
        losses = jax.tree.map(lambda leaf: leaf.shape, jax.eval_shape(loss, rows, rows))
    if losses != (2,):  # a mean would be broadcast, and count padded rows
        raise ConfigError(f"{config['loss']['name']} gives {losses} for 2 examples",
                          where="config.loss", fix="return one loss per example, f32[B]")
    return tasks.make(kind, source.classes, loss,
                      metrics(({"name": tasks.METRICS[kind]},), kind, "metrics"))


PER_OUTPUT = ("class_weights", "prior")  # arguments of losses: a number for each output, or "auto"


def _loss(choice: Mapping, kind: str, data: feed.Feed):
    """config.loss, with what is "auto" counted in the labels of training."""
    loss = LOSSES.bind(choice, "config.loss")
    suited = LOSSES.facts(choice["name"])["tasks"]
    if kind not in suited:
        fitting = [name for name in LOSSES.names() if kind in LOSSES.facts(name)["tasks"]]
        raise ConfigError(f"{choice['name']} is for {' and '.join(suited)} tasks, not {kind}",
                          where="config.loss.name", fix=f"use one of {fitting}")
    parameters = inspect.signature(loss).parameters
    given = {name: parameters[name].default for name in PER_OUTPUT if name in parameters}
    for name in [name for name, value in given.items() if value == "auto"]:
        where = f"config.loss.{name}"
        found = tasks.counts(data.labels(where), data.source.classes, where)
        loss = functools.partial(loss, **{name: tasks.automatic(name, kind, *found)})
    return loss


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
