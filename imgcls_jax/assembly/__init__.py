"""config -> Run: the only place where the registries meet. Below it nobody sees a config."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from imgcls_jax import config as configs
from imgcls_jax import durations, features, init, optim, steps
from imgcls_jax.assembly import evaluation, inputs, network, objective
from imgcls_jax.data import feed
from imgcls_jax.device_transforms import DEVICE_TRANSFORMS
from imgcls_jax.errors import ConfigError
from imgcls_jax.parallel import processes, transfer
from imgcls_jax.parallel.mesh import by_shard, check_batch, make_mesh
from imgcls_jax.parallel.rules import abstract, state_shardings
from imgcls_jax.registry import bind
from imgcls_jax.transforms import TRANSFORMS
from imgcls_jax.types import Evaluation, ModelSpec, Run, Task, TrainState


def build(config: Mapping, *, claim: Mapping | None = None, devices=None) -> Run:
    """Everything of a run, from a checked config; touches no data and compiles nothing.

    devices: those of the mesh, all by default. Raises ConfigError, or DataError if the data that
    the config names is not there.
    """
    configs.check(config)
    data = inputs.fed(config["data"], config["seed"])
    count = durations.phases(config)
    if count == 1:
        return _build(config, data, claim, devices)
    each = [durations.at_phase(config, i) for i in range(count)]
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


def _build(config: Mapping, data: feed.Feed, claim: Mapping | None, devices) -> Run:
    """Everything of a run, or of one phase of it."""
    dtype = processes.compute_dtype(config["precision"])
    source, batch_size = data.source, config["batch_size"]
    counted = {"examples": data.examples(data.options["train"]), "batch_size": batch_size}
    c = {key: value if key == "data" else durations.resolve(value, **counted, where=key)
         for key, value in config.items()}
    total_steps = durations.steps(config["total"], **counted, where="total")

    mesh = bind(make_mesh, c["mesh"], "config.mesh")(devices)
    make_step = steps.STEPS.bind(c["step"], "config.step")
    check_batch(batch_size, mesh, make_step.keywords.get("accumulate", 1))

    # ---- input
    on_host = inputs.chain(c["transforms"], TRANSFORMS, "config.transforms")
    for_evals = inputs.chain(c["eval_transforms"], TRANSFORMS, "config.eval_transforms")
    on_device = inputs.chain(c["device_transforms"], DEVICE_TRANSFORMS, "config.device_transforms")
    size = inputs.image_size(on_host, source, "config.transforms")
    eval_size = inputs.image_size(for_evals, source, "config.eval_transforms")
    batches, put, kept = inputs.training(data, on_host, batch_size, mesh)
    abstract_batch = inputs.abstract_batch(batch_size, size, source, mesh)

    # ---- model and task
    task = objective.make(c, data)
    module, spec = network.make(c["model"], task.outputs, dtype)
    spec = network.as_trained(spec, c["init"])
    mean, std = network.statistics(c["data"], spec, source.channels)
    of_levels = network.normaliser(mean, std, dtype)

    def normalise(pixels):  # floats have been
        floats = jnp.issubdtype(pixels.dtype, jnp.floating)
        return pixels.astype(dtype) if floats else of_levels(pixels)

    train_size = inputs.image_size((*on_host, *on_device), source, "config.transforms")
    net = _Net(module, spec, (1, *train_size, source.channels), dtype, (mean, std))

    # ---- what learns and what evaluates
    step, schedule, state, make_state, constants = _learning(
        c, net, task, make_step, mesh, total_steps, inputs.preparation(on_device, normalise))
    evaluations = _evaluations(c, net, task, data, mesh, normalise, for_evals, kept, total_steps)
    keep, stop = _saving(c, evaluations)
    return Run(
        config=config, claim=claim, source=source, spec=spec, module=module, task=task, mesh=mesh,
        abstract_state=state, init=make_state, step=step, schedule=schedule, batches=batches,
        put=put, abstract_batch=abstract_batch, evaluations=evaluations, total_steps=total_steps,
        steps_per_epoch=counted["examples"] / batch_size, batch_size=batch_size,
        log=bind(_log, c["log"], "config.log")(), checkpoint=keep, stop=stop,
        preprocessing={"transforms": config["eval_transforms"], "mean": mean, "std": std,
                       "channels": source.channels, "image_size": eval_size},
        bad_samples=data.bad_samples, constants=constants)


@dataclasses.dataclass(frozen=True)
class _Net:
    """The model of a run: the shape of an example that it is trained on, (1, H, W, C), the dtype it
    computes in, and (mean, std) of what it sees."""

    module: Any
    spec: ModelSpec
    sample: tuple[int, ...]
    dtype: str
    seen: tuple[tuple, tuple]

    @functools.cached_property
    def wide(self) -> str:
        """The dtype of its variables."""
        return str(jnp.promote_types(self.dtype, jnp.float32))

    @functools.cached_property
    def shapes(self):
        """Those of its variables."""
        with network.tracing("config.model"):
            return init.abstract(self.module, self.sample, dtype=self.wide)


# ---- what learns ----------------------------------------------------------------------------


def _learning(c: Mapping, net: _Net, task: Task, make_step, mesh, total_steps: int, prepare):
    """(step, schedule, abstract state, () -> the state at the start, () -> its constants or None)

    prepare: as of steps.Parts.
    """
    optimizer, schedule, average = optim.build(c, net.shapes["params"], total_steps)

    def each_shard(gradients, dtype: str):
        _check_separable(c["model"], mesh, batch_statistics="batch_stats" in net.shapes)
        return by_shard(gradients, mesh, dtype)

    apply = net.module.apply if not c["freeze"] else features.apply_frozen(
        net.module, optim.frozen(c["freeze"], net.shapes["params"]))
    teach = taught = constants = None
    if "teacher" in make_step.keywords:
        teach, taught, read_teacher = network.teacher(
            make_step.keywords["teacher"], task, net.sample, *net.seen, net.dtype)
    step = make_step(steps.Parts(apply=apply, task=task, optimizer=optimizer, ema=average,
                                 by_shard=each_shard, prepare=prepare, seed=c["seed"],
                                 teacher=teach))
    make_state = functools.partial(_state, optimizer=optimizer, averaged=average is not None)
    state = jax.eval_shape(make_state, net.shapes).replace(constants=taught)
    shardings = state_shardings(state, mesh, tuple(c["mesh"].get("rules", ())))
    if teach:
        def constants():
            return transfer.place(read_teacher(), shardings.constants)

    def initial() -> TrainState:
        variables = init.initialise(net.module, net.sample, c["seed"], dtype=net.wide)
        if c["init"] is not None:
            variables = network.initial(c["init"], variables, net.spec)
        placed = transfer.place(variables, {"params": shardings.params, **shardings.model_state})
        fresh = jax.jit(make_state, out_shardings=shardings.replace(constants=None))(placed)
        return fresh.replace(constants=constants()) if constants else fresh

    return step, schedule, abstract(state, shardings), initial, constants


def _state(variables: Mapping, optimizer, averaged: bool) -> TrainState:
    params = variables["params"]
    model_state = {k: v for k, v in variables.items() if k != "params"}
    average = {"params": params, "model_state": model_state} if averaged else None
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, model_state=model_state,
                      opt_state=optimizer.init(params), ema=average)


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


# ---- what evaluates -------------------------------------------------------------------------


def _evaluations(c: Mapping, net: _Net, task: Task, data: feed.Feed, mesh, normalise,
                 transforms: list, kept, total_steps: int) -> dict[str, Evaluation]:
    """config.evals by name. transforms: of config.eval_transforms; kept: as images.training."""
    shards = mesh.shape["data"] * mesh.shape["fsdp"]

    def predict(variables, pixels):
        return net.module.apply(variables, normalise(pixels), train=False)

    def embed(variables, pixels):
        return features.head_input(net.module, net.spec.head, variables, normalise(pixels))[""]

    def fits(size, where: str):
        """Refuses now, not after an epoch, what the model cannot take."""
        if size != net.sample[1:3]:
            with network.tracing(where):
                jax.eval_shape(predict, net.shapes, jax.ShapeDtypeStruct(
                    (1, *size, net.sample[-1]), jnp.uint8))

    return {name: evaluation.make(
        choice or {}, f"config.evals.{name}", data=data, seed=c["seed"], mesh=mesh, task=task,
        predict=predict, embed=embed, transforms=transforms, fits=fits, kept=kept,
        batch_size=math.ceil(c["batch_size"] / shards) * shards, total_steps=total_steps)
        for name, choice in c["evals"].items()}


def _saving(c: Mapping, evaluations: Mapping) -> tuple[dict, dict | None]:
    """config.checkpoint and config.stop, whose metrics an evaluation must give."""
    keep = bind(_checkpoint, c["checkpoint"], "config.checkpoint")()
    stop = bind(_stop, c["stop"], "config.stop")() if c["stop"] is not None else None
    named = {"checkpoint.best": keep["best"], "stop.metric": stop and stop["metric"]}
    for key, metric in named.items():
        if metric is not None and metric.split("/")[0] not in evaluations:
            raise ConfigError(f"no evaluation gives {metric!r}", where=f"config.{key}",
                              fix=f"begin with one of {[f'{name}/' for name in evaluations]}")
    return keep, stop


# ---- what has no file of its own ------------------------------------------------------------


def _at_least_1(where: str, **numbers: int):
    for name, number in numbers.items():
        if number < 1:
            raise ConfigError(f"{name}={number}", where=f"{where}.{name}", fix="use 1 or more")


def _log(*, every: int = 50, wandb: str | None = None):
    _at_least_1("config.log", every=every)
    return {"every": every, "wandb": wandb}


def _checkpoint(*, every: int, keep: int = 3, best: str | None = None,
                best_mode: Literal["max", "min"] = "max"):
    _at_least_1("config.checkpoint", every=every, keep=keep)
    return {"every": every, "keep": keep, "best": best, "best_mode": best_mode}


def _stop(*, metric: str, patience: int, mode: Literal["max", "min"] = "max"):
    _at_least_1("config.stop", patience=patience)
    return {"metric": metric, "patience": patience, "mode": mode}
