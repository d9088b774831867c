"""config -> Run: the only file where the registries meet. Below it nobody sees a config."""

import contextlib
import dataclasses
import functools
import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np

from imgcls_jax import (
    checkpoint,
    datasets,
    features,
    feed,
    init,
    optim,
    resident,
    runtime,
    sharding,
    steps,
    tasks,
    tree,
)
from imgcls_jax import config as configs
from imgcls_jax.datasets import DATASETS
from imgcls_jax.device_transforms import DEVICE_TRANSFORMS
from imgcls_jax.errors import ConfigError
from imgcls_jax.evaluators import EVALUATORS, Parts
from imgcls_jax.losses import LOSSES
from imgcls_jax.metrics import METRICS
from imgcls_jax.models import MODELS
from imgcls_jax.pretrained import catalogue, load
from imgcls_jax.registry import bind, near
from imgcls_jax.transforms import TRANSFORMS
from imgcls_jax.types import Evaluation, Metric, ModelSpec, Run, Task, TrainState


@contextlib.contextmanager
def tracing(where: str):
    """Turns what a model refuses while it is traced into a ConfigError."""
    try:
        yield
    except (ValueError, TypeError, ArithmeticError, flax.errors.FlaxError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(reason[0][:300], where=where,
                          fix="change the argument it names; --debug shows the line") from error


# ---- the model and what its outputs mean ----------------------------------------------------


def model(choice: Mapping, classes: int, dtype: str) -> tuple[Any, ModelSpec]:
    """config.model -> (linen module, its facts)."""
    if "dtype" in choice:
        raise ConfigError("the dtype of the model is that of the run", where="config.model.dtype",
                          fix="set config.precision")
    make = MODELS.bind(choice, "config.model")
    with tracing("config.model"):
        module = make(classes, dtype=dtype)
    name = choice["name"]
    return module, ModelSpec(name=name, weights=catalogue.weights(name), **MODELS.facts(name))


def statistics(data: Mapping, spec: ModelSpec, channels: int) -> tuple[tuple, tuple]:
    """(mean, std) per channel: those of config.data, else the model's. One number is every
    channel's; the model's three are averaged for one channel."""
    def fit(values, averaged: bool):
        values = tuple(values) if isinstance(values, tuple | list) else (values,)
        if averaged and channels == 1:
            return (sum(values) / len(values),)
        return values * channels if len(values) == 1 else values

    mean = fit(data.get("mean", spec.mean), "mean" not in data)
    std = fit(data.get("std", spec.std), "std" not in data)
    numbers = all(isinstance(value, int | float) for value in (*mean, *std))
    if not numbers or len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise ConfigError(f"mean={mean}, std={std} for {channels} channels",
                          where="config.data.mean", fix="give a number per channel, std above 0")
    return mean, std


def normaliser(mean, std, dtype: str):
    """u8[B,H,W,C] -> dtype[B,H,W,C]: (x / 255 - mean) / std, computed in f32 at least."""
    wide = jnp.promote_types(dtype, jnp.float32)
    scale = 1.0 / (255.0 * np.asarray(std, np.float64))
    shift = -np.asarray(mean, np.float64) / np.asarray(std, np.float64)

    def normalise(images):
        return (images.astype(wide) * scale.astype(wide) + shift.astype(wide)).astype(dtype)

    return normalise


def task(config: Mapping, data: feed.Feed) -> Task:
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
        labels = datasets.labels(data.source, data.options["train"], where)
        found = tasks.counts(labels, data.source.classes, where)
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


def chain(choices, registry, where: str) -> list:
    """A tuple of choices -> the things they name, in order."""
    return [registry.bind(choice, f"{where}[{i}]")() for i, choice in enumerate(choices)]


def preparation(transforms, normalise):
    """(key, images, targets) -> (f[B,H,W,C], targets): the device transforms in order.

    Those that declare `levels = True` are given u8 images, and come before `normalise`.
    """
    of_levels = [getattr(transform, "levels", False) for transform in transforms]
    first = of_levels.index(False) if False in of_levels else len(of_levels)
    if any(of_levels[first:]):
        place = f"config.device_transforms[{of_levels.index(True, first)}]"
        raise ConfigError("it works on the levels 0 to 255, but one before it on normalised images",
                          where=place, fix="put those that work on levels first")

    def prepare(key, images, targets):
        if first and images.dtype != jnp.uint8:
            raise ConfigError(f"it needs levels 0 to 255, but the images are {images.dtype}",
                              where="config.device_transforms[0]",
                              fix="feed u8 images, or leave out the transforms of levels")
        keys = [jax.random.fold_in(key, i) for i in range(len(transforms))]
        for i, transform in enumerate(transforms[:first]):
            images, targets = transform(keys[i], images, targets)
        images = normalise(images)
        for i, transform in enumerate(transforms[first:], first):
            images, targets = transform(keys[i], images, targets)
        return images, targets

    return prepare


def image_size(transforms, source, where: str) -> tuple[int, int]:
    """(H, W) that every image has behind the transforms, from what each of them declares."""
    size = source.image_size
    for transform in transforms:
        size = getattr(transform, "size", size)
    if size is None:
        raise ConfigError(f"the images of {source.name} have no one size", where=where,
                          fix="end with a transform that gives one, such as center_crop")
    return size


# ---- the state ------------------------------------------------------------------------------


def _initial(*, weights: str, reset: tuple[str, ...] = ()):
    """config.init: a workdir, a file or a published name, and what starts anew all the same."""
    return weights, reset


def _initial_weights(choice: Mapping, fresh: dict, spec: ModelSpec) -> dict:
    """Fresh variables with those of config.init in their place, but for `reset`."""
    weights, reset = bind(_initial, choice, "config.init")()
    wanted = tree.flatten(fresh)
    inside = {path.split("/", 1)[1] for path in wanted}
    for prefix in reset:
        if not any(path.startswith(prefix) for path in inside):
            raise ConfigError(f"no variable begins with {prefix!r}", where="config.init.reset",
                              fix=near(prefix, {path.split("/")[0] for path in inside}))
    return load.into(fresh, load.read(weights, spec, wanted), spec, reset=reset)


def _teacher(weights: str, task: Task, sample: tuple, mean, std, dtype: str):
    """(apply, shapes of its variables, () -> the variables as numpy) of config.step.teacher.

    apply: (variables, images f[B,H,W,C] normalised by mean and std) -> logits f32[B,K].
    """
    where, name = "config.step.teacher", weights.partition("/")[0]
    choice, kind, classes = {"name": name}, "multiclass", None
    if (Path(weights) / "checkpoints").is_dir():
        saved, _ = checkpoint.read_config(Path(weights) / "checkpoints")
        config = configs.plain(saved["config"])
        choice, kind, classes = config["model"], config["task"], tuple(saved["classes"])
    elif weights.partition("/")[2] not in catalogue.weights(name):
        raise ConfigError(f"{weights!r} is neither a workdir nor published weights", where=where,
                          fix="name one of `imgcls weights list`, as 'resnet50/imagenet1k_v2', or "
                              "make a workdir of a file: imgcls convert")
    module, spec = model(choice, task.outputs, dtype)
    count = len(classes or range(spec.classes))
    if kind != task.kind or count != len(task.classes) or classes not in (None, task.classes):
        raise ConfigError(f"the teacher is {kind} of {count} classes, the run {task.kind} of "
                          f"{len(task.classes)}" + (", which are others" if count == len(
                              task.classes) and kind == task.kind else ""), where=where,
                          fix="take one that was trained on the same classes in the same order")
    own_mean, own_std = load.normalisation(weights, spec)
    if len(own_mean) != len(mean):
        raise ConfigError(f"the teacher takes {len(own_mean)} channels, the run {len(mean)}",
                          where=where, fix="set config.data.channels, or take another teacher")
    same = (tuple(own_mean), tuple(own_std)) == (tuple(mean), tuple(std))
    scale = np.divide(std, own_std)
    shift = np.subtract(mean, own_mean) / own_std
    with tracing(where):
        shapes = init.abstract(module, sample, dtype=str(jnp.promote_types(dtype, jnp.float32)))

    def apply(variables, images):
        if not same:
            wide = images.astype(jnp.promote_types(dtype, jnp.float32))
            images = (wide * scale.astype(wide.dtype) + shift.astype(wide.dtype)).astype(dtype)
        return module.apply(variables, images, train=False)

    def read():
        found = load.read(weights, spec, tree.flatten(shapes))
        return load.into(shapes, found, spec)

    return apply, shapes, read


def _state(variables: Mapping, optimizer, averaged: bool) -> TrainState:
    params = variables["params"]
    model_state = {k: v for k, v in variables.items() if k != "params"}
    average = {"params": params, "model_state": model_state} if averaged else None
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, model_state=model_state,
                      opt_state=optimizer.init(params), ema=average)


def _abstract_batch(size: int, image_size: tuple[int, int], source, mesh) -> dict:
    """Shapes, dtypes and shardings of a batch on the mesh."""
    where = jax.sharding.NamedSharding(mesh, sharding.BATCH)
    label = (((size, len(source.classes)), jnp.float32) if source.kind == "multilabel" else
             ((size,), jnp.int32))
    shapes = {"image": ((size, *image_size, source.channels), jnp.uint8), "label": label,
              "mask": ((size,), jnp.float32)}
    return {name: jax.ShapeDtypeStruct(*leaf, sharding=where) for name, leaf in shapes.items()}


def _lower(program, batch, variables):
    return program.lower(variables, batch)


# ---- the input ------------------------------------------------------------------------------


def _batches_from(data: feed.Feed, split: str, transforms, start_step: int, *, batch_size: int,
                  rows: slice):
    return data.train(split, transforms, batch_size=batch_size, start_step=start_step, rows=rows)


def _eval_batches(data: feed.Feed, split: str, transforms, abstract_batch, mesh, kept,
                  on_error: str, where: str):
    """Batches on the mesh. kept: (split, transforms) -> Resident, where data is on the devices."""
    batch_size = abstract_batch["mask"].shape[0]
    rows = sharding.rows(batch_size, mesh)
    if kept:
        resident = kept(split, tuple(transforms))
        host, put = resident.evaluate(batch_size, rows), resident.put
    else:
        host = data.evaluate(split, transforms, batch_size=batch_size, rows=rows,
                             on_error=on_error)
        put = functools.partial(sharding.to_device, mesh=mesh)
    for _, batch in sharding.prefetch(host, functools.partial(put, batch_size=batch_size)):
        sharding.check_arrays(batch, abstract_batch, where)
        yield batch


# ---- all of it ------------------------------------------------------------------------------


def build(config: Mapping, *, claim: Mapping | None = None, devices=None) -> Run:
    """Everything of a run, from a checked config; touches no data and compiles nothing.

    devices: those of the mesh, all by default. Raises ConfigError, or DataError if the data that
    the config names is not there.
    """
    configs.check(config)
    data = _feed(config["data"], config["seed"])
    count = configs.phases(config)
    if count == 1:
        return _build(config, data, claim, devices)
    each = [configs.at_phase(config, i) for i in range(count)]
    runs = [_build(one, data, claim, devices) for one in each]
    for i in range(1, count):  # what differs on the host alone is one program
        if (runs[i].abstract_batch == runs[i - 1].abstract_batch
                and each[i] | {"transforms": ()} == each[i - 1] | {"transforms": ()}):
            runs[i] = dataclasses.replace(runs[i], step=runs[i - 1].step)
    shapes = [jax.tree.map(lambda leaf: leaf.shape, run.abstract_state) for run in runs]
    if any(other != shapes[0] for other in shapes):
        raise ConfigError("the parameters of the model are not the same in every phase",
                          where="config.model", fix="keep its shape, and use a model whose "
                          "parameters do not depend on the image size where that changes")
    starts = [round(runs[0].total_steps * i / count) for i in range(count)]
    # Evaluated is always as it will be in the end.
    return dataclasses.replace(
        runs[0], config=config, evaluations=runs[-1].evaluations,
        preprocessing=runs[-1].preprocessing, phases=tuple(zip(starts, runs, strict=True)))


def _feed(choice: Mapping, seed: int) -> feed.Feed:
    """config.data."""
    options = bind(feed.options, {k: v for k, v in choice.items() if k in feed.OPTIONS},
                   "config.data")()
    source = DATASETS.bind({k: v for k, v in choice.items() if k not in feed.OPTIONS},
                           "config.data")()
    if source.channels not in (1, 3):
        raise ConfigError(f"channels={source.channels}", where="config.data.channels",
                          fix="use 1 (gray) or 3 (color)")
    return feed.Feed(feed.select(source, options, seed), seed, options)


def _build(config: Mapping, data: feed.Feed, claim: Mapping | None, devices) -> Run:
    """Everything of a run, or of one phase of it."""
    dtype = runtime.compute_dtype(config["precision"])
    wide = str(jnp.promote_types(dtype, jnp.float32))
    source, train_split = data.source, data.options["train"]
    examples, batch_size = data.examples(train_split), config["batch_size"]
    c = {key: value if key == "data" else configs.resolve(
        value, examples=examples, batch_size=batch_size, where=key)
         for key, value in config.items()}
    total_steps = configs.steps(config["total"], examples=examples, batch_size=batch_size,
                                where="total")

    # ---- mesh
    mesh = bind(sharding.make_mesh, c["mesh"], "config.mesh")(devices)
    rules = tuple(c["mesh"].get("rules", ()))
    make_step = steps.STEPS.bind(c["step"], "config.step")
    sharding.check_batch(batch_size, mesh, make_step.keywords.get("accumulate", 1))

    # ---- input
    train_transforms = chain(c["transforms"], TRANSFORMS, "config.transforms")
    eval_transforms = chain(c["eval_transforms"], TRANSFORMS, "config.eval_transforms")
    device_transforms = chain(c["device_transforms"], DEVICE_TRANSFORMS, "config.device_transforms")
    height, width = image_size(train_transforms, source, "config.transforms")
    rows = sharding.rows(batch_size, mesh)
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    eval_batch_size = math.ceil(batch_size / shards) * shards
    eval_size = image_size(eval_transforms, source, "config.eval_transforms")
    abstract_batch = _abstract_batch(batch_size, (height, width), source, mesh)
    on_device = data.options["on_device"]

    @functools.cache
    def kept(split: str, transforms):
        return resident.Resident(data, split, transforms, mesh)

    if on_device:
        def batches(start_step: int):
            return kept(train_split, tuple(train_transforms)).train(batch_size, start_step, rows)

        def put(batch):
            return kept(train_split, tuple(train_transforms)).put(batch, batch_size)
    else:
        batches = functools.partial(_batches_from, data, train_split, train_transforms,
                                    batch_size=batch_size, rows=rows)
        put = functools.partial(sharding.to_device, batch_size=batch_size, mesh=mesh)

    # ---- model and task
    what = task(c, data)
    module, spec = model(c["model"], what.outputs, dtype)
    if c["init"] is not None:  # what is trained on goes on seeing what it was trained with
        weights, _ = bind(_initial, c["init"], "config.init")()
        given = load.normalisation(weights, spec)
        spec = dataclasses.replace(spec, mean=given[0], std=given[1]) if given else spec
    mean, std = statistics(c["data"], spec, source.channels)
    of_levels = normaliser(mean, std, dtype)

    def normalise(images):  # floats have been
        floats = jnp.issubdtype(images.dtype, jnp.floating)
        return images.astype(dtype) if floats else of_levels(images)

    train_size = image_size((*train_transforms, *device_transforms), source, "config.transforms")
    sample = (1, *train_size, source.channels)
    with tracing("config.model"):
        shapes = init.abstract(module, sample, dtype=wide)

    # ---- optimizer, step, state
    optimizer, schedule, average = optim.build(c, shapes["params"], total_steps)

    def by_shard(gradients, dtype: str):
        _check_separable(c["model"], mesh, batch_statistics="batch_stats" in shapes)
        return sharding.by_shard(gradients, mesh, dtype)

    apply = module.apply if not c["freeze"] else features.apply_frozen(
        module, optim.frozen(c["freeze"], shapes["params"]))
    teach = constants = None
    if "teacher" in make_step.keywords:
        teach, taught, read_teacher = _teacher(make_step.keywords["teacher"], what, sample, mean,
                                               std, dtype)
    step = make_step(steps.Parts(
        apply=apply, task=what, optimizer=optimizer, ema=average, by_shard=by_shard,
        prepare=preparation(device_transforms, normalise), seed=c["seed"], teacher=teach))
    make_state = functools.partial(_state, optimizer=optimizer, averaged=average is not None)
    state = jax.eval_shape(make_state, shapes).replace(constants=taught if teach else None)
    shardings = sharding.state_shardings(state, mesh, rules)
    if teach:
        def constants():
            return sharding.place(read_teacher(), shardings.constants)

    def initial_state() -> TrainState:
        variables = init.initialise(module, sample, c["seed"], dtype=wide)
        if c["init"] is not None:
            variables = _initial_weights(c["init"], variables, spec)
        placed = sharding.place(variables, {"params": shardings.params, **shardings.model_state})
        fresh = jax.jit(make_state, out_shardings=shardings.replace(constants=None))(placed)
        return fresh.replace(constants=constants()) if constants else fresh

    # ---- evaluation
    def predict(variables, images):
        return module.apply(variables, normalise(images), train=False)

    def embed(variables, images):
        return features.head_input(module, spec.head, variables, normalise(images))[""]

    def fits(size, where: str):
        """Refuses now, not after an epoch, what the model cannot take."""
        if size != train_size:
            with tracing(where):
                jax.eval_shape(predict, shapes, jax.ShapeDtypeStruct(
                    (1, *size, source.channels), jnp.uint8))

    evaluations = {name: _evaluation(
        choice or {}, f"config.evals.{name}", data=data, seed=c["seed"], mesh=mesh, task=what,
        predict=predict, embed=embed, transforms=eval_transforms, batch_size=eval_batch_size,
        fits=fits, kept=kept if on_device else None, total_steps=total_steps)
        for name, choice in c["evals"].items()}

    keep = bind(_checkpoint, c["checkpoint"], "config.checkpoint")()
    stop = bind(_stop, c["stop"], "config.stop")() if c["stop"] is not None else None
    named = {"checkpoint.best": keep["best"], "stop.metric": stop and stop["metric"]}
    for key, metric in named.items():
        if metric is not None and metric.split("/")[0] not in evaluations:
            raise ConfigError(f"no evaluation gives {metric!r}", where=f"config.{key}",
                              fix=f"begin with one of {[f'{name}/' for name in evaluations]}")
    return Run(
        config=config, claim=claim, source=source, spec=spec, module=module, task=what, mesh=mesh,
        abstract_state=sharding.abstract(state, shardings), init=initial_state, step=step,
        schedule=schedule, batches=batches, put=put, abstract_batch=abstract_batch,
        evaluations=evaluations, total_steps=total_steps, steps_per_epoch=examples / batch_size,
        batch_size=batch_size, log=bind(_log, c["log"], "config.log")(),
        checkpoint=keep, stop=stop,
        preprocessing={"transforms": config["eval_transforms"], "mean": mean, "std": std,
                       "channels": source.channels, "image_size": eval_size},
        bad_samples=data.bad_samples, constants=constants)


def _evaluation(choice: Mapping, where: str, *, data: feed.Feed, seed: int, mesh, task: Task,
                predict, embed, transforms: list, batch_size: int, fits, kept,
                total_steps: int) -> Evaluation:
    """One of config.evals. transforms: those of config.eval_transforms; kept: as _eval_batches."""
    given = bind(_every_evaluation, {k: v for k, v in choice.items() if k in EVALUATION}, where)()
    evaluator = EVALUATORS.bind({k: v for k, v in choice.items() if k not in EVALUATION}, where)
    own = _other_data(given["data"], data.source, task.kind, seed, where)
    fed = own or data
    place = "config.eval_transforms"
    if given["transforms"]:
        place = f"{where}.transforms"
        transforms = chain(given["transforms"], TRANSFORMS, place)
    size = image_size(transforms, fed.source, place)
    fits(size, place)
    split = given["split"] or fed.options["eval"]
    datasets.size(fed.source, split)
    batch = _abstract_batch(batch_size, size, fed.source, mesh)
    if given["metrics"] is not None:
        task = dataclasses.replace(
            task, metrics=metrics(given["metrics"], task.kind, f"{where}.metrics"))
    predict, task = _among(predict, task, fed.source.subset)

    def batches(other: str | None = None):
        return _eval_batches(fed, other or split, transforms, batch, mesh,
                             None if own else kept, given["on_error"], place)

    evaluate = evaluator(Parts(predict=predict, embed=embed, batches=batches, task=task))
    program = getattr(evaluate, "program", None)
    return Evaluation(run=evaluate, every=given["every"] or total_steps,
                      lower=program and functools.partial(_lower, program, batch))


def _among(predict, task: Task, subset: tuple[int, ...] | None):
    """(predict, task) of data that has some of the classes only: the others are no answer."""
    if subset is None:
        return predict, task
    kept = np.array(subset)
    given = getattr(task.loss, "keywords", {})
    fewer = {name: tuple(np.array(given[name])[kept].tolist()) for name in PER_OUTPUT
             if given.get(name) is not None}

    def targets(label):
        return task.targets(label)[:, kept]

    return (lambda variables, images: predict(variables, images)[:, kept],
            dataclasses.replace(task, targets=targets, outputs=len(kept),
                                classes=tuple(task.classes[k] for k in subset),
                                loss=functools.partial(task.loss, **fewer)))


def _check_separable(choice: Mapping, mesh, batch_statistics: bool):
    """ConfigError where the gradients of a shard by itself are not those of the global batch."""
    for axis in ("fsdp", "model"):
        if mesh.shape[axis] > 1:
            raise ConfigError(f"the state is split over {axis}, but step.reduce wants it whole on "
                              "each device", where="config.step.reduce",
                              fix=f"set config.step.reduce=None or config.mesh.{axis}=1")
    if batch_statistics and mesh.shape["data"] > 1 and choice.get("norm_group") is None:
        raise ConfigError("BatchNorm is over the whole batch, but step.reduce works on each "
                          "device's part by itself", where="config.step.reduce",
                          fix="set config.model.norm_group to at most the examples of one "
                              "device, or config.step.reduce=None")


def _at_least_1(where: str, **numbers: int):
    for name, number in numbers.items():
        if number < 1:
            raise ConfigError(f"{name}={number}", where=f"{where}.{name}", fix="use 1 or more")


def _log(*, every: int = 50, wandb: str | None = None):
    _at_least_1("config.log", every=every)
    return {"every": every, "wandb": wandb}


def _every_evaluation(*, split: str | None = None, every: int | None = None,
                      metrics: tuple | None = None, data: dict | None = None,
                      transforms: tuple | None = None,
                      on_error: Literal["fail", "skip"] = "fail"):
    """What `build` takes of every evaluation.

    metrics, transforms: choices that replace the task's and config.eval_transforms. data: another
    dataset of the same classes. on_error: "skip" leaves out what cannot be read, within the limits
    of config.data.
    """
    return dict(locals())


EVALUATION = tuple(_every_evaluation())


def _other_data(choice: Mapping | None, source, kind: str, seed: int,
                where: str) -> feed.Feed | None:
    """The data of an evaluation that has its own."""
    if choice is None:
        return None
    other = _feed(choice, seed)
    tasks.check(kind, other.source, f"{where}.data", evaluated=True)
    for name in ("classes", "channels"):
        if getattr(other.source, name) != getattr(source, name):
            raise ConfigError(f"{other.source.name} has other {name} than {source.name}",
                              where=f"{where}.data", fix="evaluate on data of the same classes, in "
                                                         "the same order")
    return other


def _checkpoint(*, every: int, keep: int = 3, best: str | None = None,
                best_mode: Literal["max", "min"] = "max"):
    _at_least_1("config.checkpoint", every=every, keep=keep)
    return {"every": every, "keep": keep, "best": best, "best_mode": best_mode}


def _stop(*, metric: str, patience: int, mode: Literal["max", "min"] = "max"):
    _at_least_1("config.stop", patience=patience)
    return {"metric": metric, "patience": patience, "mode": mode}
