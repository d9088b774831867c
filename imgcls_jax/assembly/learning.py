"""config.optimizer, schedule, weight_decay, clip, freeze, ema and step: what learns."""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from imgcls_jax import features, init, optim, steps
from imgcls_jax.assembly import network
from imgcls_jax.assembly.network import Net
from imgcls_jax.assembly.probe import Probe
from imgcls_jax.errors import ConfigError
from imgcls_jax.optimizers import OPTIMIZERS
from imgcls_jax.parallel import transfer
from imgcls_jax.parallel.mesh import by_shard
from imgcls_jax.parallel.rules import abstract, state_shardings
from imgcls_jax.registry import bind, divide
from imgcls_jax.schedules import SCHEDULES
from imgcls_jax.types import Task, TrainState, Tree


class Learning(NamedTuple):
    """step, schedule, state (abstract), init and constants: as of types.Run."""

    step: Callable
    schedule: Callable
    state: TrainState
    init: Callable[[], TrainState]
    constants: Callable[[], Tree] | None


def optimizer(config: Mapping, params, total_steps: int) -> optim.Built:
    """Optimizer, schedule, decay, clipping, freezing and average of a config with durations in
    steps. params: their shapes."""
    shared, own = divide(config["schedule"], optim.ScheduleOptions)
    schedule = SCHEDULES.bind(own, "config.schedule")
    options = bind(optim.ScheduleOptions, shared, "config.schedule")()
    rate = optim.learning_rate(schedule, options, total_steps, config["batch_size"])
    shared, own = divide(config["optimizer"], optim.OptimizerOptions)
    make = OPTIMIZERS.bind(own, "config.optimizer")
    facts = OPTIMIZERS.facts(own["name"])
    peak, high = rate[0], facts.get("high", optim.ABSURD)
    if not 0 < peak <= high:
        warnings.warn(f"the learning rate is {peak:g}, " + (
            f"more than the {high:g} that {own['name']} is used with" if peak else
            "so nothing is learned"), stacklevel=2)
    decay, clip = (bind(kind, config[key], f"config.{key}")() if config[key] is not None else None
                   for key, kind in (("weight_decay", optim.WeightDecay), ("clip", optim.Clip)))
    return optim.combine(
        make, facts["decay"], bind(optim.OptimizerOptions, shared, "config.optimizer")(), params,
        rate=rate, decay=decay, clip=clip, freeze=config["freeze"],
        average=_average(config["ema"], facts.get("evaluated"), own["name"]))


def _average(choice: Mapping | None, evaluated: Callable | None, name: str) -> Callable | None:
    """What keeps the values to evaluate, where they differ from those trained."""
    if evaluated is None:
        return bind(optim.ema, choice, "config.ema")() if choice is not None else None
    if choice is not None:
        raise ConfigError(f"the optimizer {name} keeps an average itself, but config.ema is set",
                          where="config.ema", fix="set config.ema=None")
    return optim.evaluated_average(evaluated)


def make(c: Mapping, net: Net, task: Task, make_step: functools.partial, mesh, total_steps: int,
         prepare: Callable, probed: Probe | None, note: Callable[[str], None]) -> Learning:
    """What learns. make_step: config.step, bound. prepare: as of steps.Parts. probed: where its
    images are features. note: is told what training starts from."""
    transformation, schedule, average = optimizer(c, net.shapes["params"], total_steps)

    def each_shard(gradients, dtype: str):
        _check_separable(c["model"], mesh, batch_statistics="batch_stats" in net.shapes)
        return by_shard(gradients, mesh, dtype)

    apply = (probed.apply if probed else net.module.apply if not c["freeze"] else
             features.apply_frozen(net.module, optim.frozen(c["freeze"], net.shapes["params"])))
    teach = taught = None
    constants: Callable[[], Tree] | None = None
    if "teacher" in make_step.keywords:
        teach, taught, read_teacher = network.teacher(
            make_step.keywords["teacher"], task, net.sample, *net.seen, net.dtype)
    step = make_step(steps.Parts(apply=apply, task=task, optimizer=transformation, ema=average,
                                 by_shard=each_shard, prepare=prepare, seed=c["seed"],
                                 teacher=teach))
    make_state = functools.partial(_state, optimizer=transformation, averaged=average is not None)
    state = jax.eval_shape(make_state, net.shapes).replace(constants=taught)
    shardings = state_shardings(state, mesh, tuple(c["mesh"].get("rules", ())))
    if teach:
        def constants() -> Tree:
            return transfer.place(read_teacher(), shardings.constants)

    def initial() -> TrainState:
        variables = init.initialise(net.module, net.sample, c["seed"], dtype=net.wide)
        if c["init"] is not None:
            variables, taken = network.initial(c["init"], variables, net)
            note(taken)
        placed = transfer.place(variables, {"params": shardings.params, **shardings.model_state})
        fresh = jax.jit(make_state, out_shardings=shardings.replace(constants=None))(placed)
        return fresh.replace(constants=constants()) if constants else fresh

    return Learning(step, schedule, abstract(state, shardings), initial, constants)


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
