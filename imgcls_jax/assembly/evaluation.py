"""config.evals: each with its own split, data, transforms and metrics."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from imgcls_jax import datasets, features, tasks
from imgcls_jax.assembly import inputs, objective
from imgcls_jax.assembly.network import Net, grid, tracing
from imgcls_jax.assembly.probe import Probe
from imgcls_jax.data import feed
from imgcls_jax.errors import ConfigError
from imgcls_jax.evaluators import EVALUATORS, Parts
from imgcls_jax.registry import bind, divide
from imgcls_jax.transforms import TRANSFORMS
from imgcls_jax.types import Evaluation, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """The arguments that all evaluations share.

    split: by default that of config.data.eval. every: a duration; None: at the end alone. metrics,
    transforms: choices that replace the task's and config.eval_transforms. data: another dataset of
    the same classes. on_error: "skip" leaves out what cannot be read, within the limits of
    config.data.
    """

    split: str | None = None
    every: int | None = None
    metrics: tuple | None = None
    data: dict | None = None
    transforms: tuple | None = None
    on_error: Literal["fail", "skip"] = "fail"


def make(c: Mapping, net: Net, task: Task, data: feed.Feed, mesh, normalise: Callable,
         transforms: list, kept: Callable | None, probed: Probe | None,
         total_steps: int) -> dict[str, Evaluation]:
    """config.evals by name. transforms: of config.eval_transforms; kept: as inputs.training;
    probed: where an evaluator that can gets features in the place of images."""
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    batch_size = math.ceil(c["batch_size"] / shards) * shards

    def predict(variables, pixels):
        return net.module.apply(variables, normalise(pixels), train=False)

    def embed(variables, pixels):
        return features.head_input(net.module, net.spec.head, variables, normalise(pixels))[""]

    def fits(size, where: str):
        """Refuses now, not after an epoch, what the model cannot take."""
        if size != net.sample[1:3]:
            with tracing(where):
                jax.eval_shape(predict, net.shapes, jax.ShapeDtypeStruct(
                    (1, *size, net.sample[-1]), jnp.uint8))
            here, there = (grid(net.module, each) for each in (size, net.sample[1:3]))
            if here and there and here != there and "positions" in net.shapes["params"]:
                # As many patches: the shapes fit, and each would get the position of another.
                raise ConfigError(f"images of {here[0]} x {here[1]} patches do not fit positions "
                                  f"learned for {there[0]} x {there[1]}", where=where,
                                  fix="evaluate on images of the size that is trained on")

    def one(choice: Mapping, where: str) -> Evaluation:
        shared, own = divide(choice, EvaluationOptions)
        given = bind(EvaluationOptions, shared, where)()
        evaluator = EVALUATORS.bind(own, where)
        other = _other_data(given.data, data.source, task.kind, c["seed"], where)
        fed, place, chain = other or data, "config.eval_transforms", transforms
        if given.transforms:
            place = f"{where}.transforms"
            chain = inputs.chain(given.transforms, TRANSFORMS, place)
        size = inputs.image_size(chain, fed.source, place)
        fits(size, place)
        split = given.split or fed.options.eval
        batch = inputs.abstract_batch(batch_size, size, fed.source, mesh)
        measured = task
        if given.metrics is not None:
            measured = dataclasses.replace(task, metrics=objective.metrics(
                given.metrics, task.kind, f"{where}.metrics"))
        held, answer, embedded = None if other else kept, predict, embed
        if probed and EVALUATORS.facts(own["name"]).get("features"):
            batch = probed.batch(batch, size)
            held = functools.partial(_held, probed, fed, size, place)
            answer = functools.partial(probed.apply, train=False)
            embedded = _as_they_are
        answer, measured = _among(answer, measured, fed.source.subset)

        def batches(name: str | None = None):
            return inputs.eval_batches(fed, name or split, chain, batch, mesh, held,
                                       given.on_error, place)

        evaluate = evaluator(Parts(predict=answer, embed=embedded, batches=batches, task=measured))
        key = (f"{where}.split" if given.split else f"{where}.data.eval" if other else
               "config.data.eval")
        for needed in getattr(evaluate, "splits", (split,)):
            datasets.size(fed.source, needed, key if needed == split else where)
        program = getattr(evaluate, "program", None)
        return Evaluation(run=evaluate, every=given.every or total_steps,
                          lower=program and functools.partial(_lower, program, batch))

    return {name: one(choice or {}, f"config.evals.{name}")
            for name, choice in c["evals"].items()}


def _held(probed: Probe, fed: feed.Feed, size, where: str, split: str, transforms, on_error: str):
    return probed.kept(fed, split, transforms, size, on_error, where)


def _as_they_are(variables, features):
    return features


def _among(predict, task: Task, subset: tuple[int, ...] | None):
    """(predict, task) of data that has some of the classes only: the others are no answer."""
    if subset is None:
        return predict, task
    kept = np.array(subset)
    given = getattr(task.loss, "keywords", {})
    fewer = {name: tuple(np.array(given[name])[kept].tolist()) for name in objective.PER_OUTPUT
             if given.get(name) is not None}

    def targets(label):
        return task.targets(label)[:, kept]

    return (lambda variables, pixels: predict(variables, pixels)[:, kept],
            dataclasses.replace(task, targets=targets, outputs=len(kept),
                                classes=tuple(task.classes[k] for k in subset),
                                loss=functools.partial(task.loss, **fewer)))


def _other_data(choice: Mapping | None, source, kind: str, seed: int,
                where: str) -> feed.Feed | None:
    """The data of an evaluation that has its own."""
    if choice is None:
        return None
    other = inputs.fed(choice, seed)
    tasks.check(kind, other.source, f"{where}.data", evaluated=True)
    for name in ("classes", "channels"):
        if getattr(other.source, name) != getattr(source, name):
            raise ConfigError(f"{other.source.name} has other {name} than {source.name}",
                              where=f"{where}.data", fix="evaluate on data of the same classes, in "
                                                         "the same order")
    return other


def _lower(program, batch, variables):
    return program.lower(variables, batch)
