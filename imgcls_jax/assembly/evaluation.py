"""config.evals: each with its own split, data, transforms and metrics."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Literal

import numpy as np

from imgcls_jax import datasets, tasks
from imgcls_jax.assembly import inputs, objective
from imgcls_jax.data import feed
from imgcls_jax.errors import ConfigError
from imgcls_jax.evaluators import EVALUATORS, Parts
from imgcls_jax.registry import bind
from imgcls_jax.transforms import TRANSFORMS
from imgcls_jax.types import Evaluation, Task


def make(choice: Mapping, where: str, *, data: feed.Feed, seed: int, mesh, task: Task, predict,
         embed, transforms: list, batch_size: int, fits, kept, total_steps: int) -> Evaluation:
    """One of config.evals.

    transforms: those of config.eval_transforms. fits: (image size, where) -> None, refuses what the
    model cannot take. kept: as of images.eval_batches.
    """
    given = bind(every_evaluation, {k: v for k, v in choice.items() if k in EVALUATION}, where)()
    evaluator = EVALUATORS.bind({k: v for k, v in choice.items() if k not in EVALUATION}, where)
    own = _other_data(given["data"], data.source, task.kind, seed, where)
    fed = own or data
    place = "config.eval_transforms"
    if given["transforms"]:
        place = f"{where}.transforms"
        transforms = inputs.chain(given["transforms"], TRANSFORMS, place)
    size = inputs.image_size(transforms, fed.source, place)
    fits(size, place)
    split = given["split"] or fed.options["eval"]
    batch = inputs.abstract_batch(batch_size, size, fed.source, mesh)
    if given["metrics"] is not None:
        task = dataclasses.replace(
            task, metrics=objective.metrics(given["metrics"], task.kind, f"{where}.metrics"))
    predict, task = _among(predict, task, fed.source.subset)

    def batches(other: str | None = None):
        return inputs.eval_batches(fed, other or split, transforms, batch, mesh,
                                   None if own else kept, given["on_error"], place)

    evaluate = evaluator(Parts(predict=predict, embed=embed, batches=batches, task=task))
    for needed in getattr(evaluate, "splits", (split,)):
        datasets.size(fed.source, needed)
    program = getattr(evaluate, "program", None)
    return Evaluation(run=evaluate, every=given["every"] or total_steps,
                      lower=program and functools.partial(_lower, program, batch))


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


def every_evaluation(*, split: str | None = None, every: int | None = None,
                     metrics: tuple | None = None, data: dict | None = None,
                     transforms: tuple | None = None,
                     on_error: Literal["fail", "skip"] = "fail"):
    """What `build` takes of every evaluation.

    metrics, transforms: choices that replace the task's and config.eval_transforms. data: another
    dataset of the same classes. on_error: "skip" leaves out what cannot be read, within the limits
    of config.data.
    """
    return dict(locals())


EVALUATION = tuple(every_evaluation())


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
