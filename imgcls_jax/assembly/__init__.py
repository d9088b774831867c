"""config -> Run: the only place where the registries meet. Below it nobody sees a config."""

import dataclasses
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import jax

from imgcls_jax import config as configs
from imgcls_jax import durations
from imgcls_jax.assembly import evaluation, inputs, learning, network, objective, probe
from imgcls_jax.data import feed
from imgcls_jax.device_transforms import DEVICE_TRANSFORMS
from imgcls_jax.errors import ConfigError
from imgcls_jax.parallel import processes
from imgcls_jax.parallel.mesh import check_batch, make_mesh
from imgcls_jax.registry import bind
from imgcls_jax.steps import STEPS
from imgcls_jax.transforms import TRANSFORMS
from imgcls_jax.types import CheckpointOptions, LogOptions, Run, StopOptions


def build(config: Mapping, *, claim: Mapping | None = None, devices=None,
          features: Path | None = None) -> Run:
    """Everything of a run; touches no data and compiles nothing.

    config: what it leaves out is as config.DEFAULTS has it. devices: those of the mesh, all by
    default. features: a folder for those of config.probe; None: the whole network is computed in
    every step. Raises ConfigError, or DataError if the data that the config names is not there.
    """
    with configs.pointing():
        return _phases(configs.complete(config), claim, devices, features)


def _phases(config: Mapping, claim: Mapping | None, devices, features: Path | None) -> Run:
    configs.check(config)
    config = configs.current(config)
    data = inputs.fed(config["data"], config["seed"])
    count = durations.phases(config)
    if count == 1:
        return _build(config, data, claim, devices, features)
    if config["probe"] is not None and features:
        raise ConfigError("config.probe keeps features of one phase, but the config has "
                          f"{count}", where="config.probe", fix="give all phases the same values, "
                          "or set config.probe=None")
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


def _build(config: Mapping, data: feed.Feed, claim: Mapping | None, devices,
           features: Path | None = None) -> Run:
    """Everything of a run, or of one phase of it."""
    dtype = processes.compute_dtype(config["precision"])
    source, batch_size = data.source, config["batch_size"]
    counted = {"examples": data.examples, "batch_size": batch_size}
    c = {key: value if key == "data" else durations.resolve(value, **counted, where=key)
         for key, value in config.items()}
    total_steps = durations.steps(config["total"], **counted, where="total")
    if batch_size >= 2 * data.examples:
        warnings.warn(f"a batch of {batch_size:,} has each of the {data.examples:,} training "
                      f"examples {batch_size / data.examples:.3g} times", stacklevel=2)

    mesh = bind(make_mesh, c["mesh"], "config.mesh")(devices)
    make_step = STEPS.bind(c["step"], "config.step")
    check_batch(batch_size, mesh, make_step.keywords.get("accumulate", 1))

    # ---- input
    on_host = inputs.chain(c["transforms"], TRANSFORMS, "config.transforms")
    for_evals = inputs.chain(c["eval_transforms"], TRANSFORMS, "config.eval_transforms")
    on_device = inputs.chain(c["device_transforms"], DEVICE_TRANSFORMS, "config.device_transforms")
    size = inputs.image_size(on_host, source, "config.transforms")
    eval_size = inputs.image_size(for_evals, source, "config.eval_transforms")

    # ---- model and task
    task, trained = objective.make(c, data)
    module, spec = network.make(c["model"], task.outputs, dtype)
    spec = network.as_trained(spec, c["init"])
    mean, std = network.statistics(c["data"], spec, source.channels)
    normalise = network.normaliser(mean, std, dtype, floats_pass=True)
    train_size = inputs.image_size((*on_host, *on_device), source, "config.transforms")
    net = network.Net(module, spec, (1, *train_size, source.channels), dtype, (mean, std))

    # ---- what learns and what evaluates
    notes = ([f"binary: {source.classes[1]!r} is the positive class, {source.classes[0]!r} the "
              "negative one"] if task.kind == "binary" else [])
    probed = probe.make(c, net, mesh, normalise, features, notes.append)
    batches, put, kept = inputs.training(data, on_host, batch_size, mesh, probed, size)
    abstract_batch = inputs.abstract_batch(batch_size, size, source, mesh)
    learns = learning.make(c, net, trained, make_step, mesh, total_steps,
                           inputs.preparation(on_device, normalise), probed, notes.append)
    evaluations = evaluation.make(c, net, task, data, mesh, normalise, for_evals, kept, probed,
                                  total_steps)
    keep, stop = _saving(c, evaluations, task.kind)
    return Run(
        config=config, claim=claim, source=source, spec=spec, module=module, task=task, mesh=mesh,
        abstract_state=learns.state, init=learns.init, step=learns.step,
        schedule=learns.schedule, batches=batches, put=put,
        abstract_batch=probed.batch(abstract_batch, size) if probed else abstract_batch,
        evaluations=evaluations, total_steps=total_steps,
        steps_per_epoch=data.examples / batch_size, batch_size=batch_size, seed=config["seed"],
        dtype=dtype,
        log=bind(LogOptions, c["log"], "config.log")(), checkpoint=keep, stop=stop,
        preprocessing={"transforms": config["eval_transforms"], "mean": mean, "std": std,
                       "channels": source.channels, "image_size": eval_size},
        bad_samples=data.bad_samples, notes=notes, constants=learns.constants,
        begin=probed.begin if probed else None,
        examples=inputs.examples(data, c["evals"]))


def _saving(c: Mapping, evaluations: Mapping,
            kind: str) -> tuple[CheckpointOptions, StopOptions | None]:
    """config.checkpoint and config.stop, whose metrics an evaluation must give."""
    def named_now(metric):  # configs of earlier runs call it "decisions"
        new = {"binary": "/accuracy", "multilabel": "/label_accuracy"}.get(kind, "")
        return re.sub("/decisions$", new, metric) if new and metric else metric

    keep = bind(CheckpointOptions, c["checkpoint"], "config.checkpoint")()
    keep = dataclasses.replace(keep, best=named_now(keep.best))
    stop = bind(StopOptions, c["stop"], "config.stop")() if c["stop"] is not None else None
    stop = stop and dataclasses.replace(stop, metric=named_now(stop.metric))
    named = {"checkpoint.best": keep.best, "stop.metric": stop and stop.metric}
    for key, metric in named.items():
        if metric is not None and metric.split("/")[0] not in evaluations:
            raise ConfigError(f"no evaluation gives {metric!r}", where=f"config.{key}",
                              fix=f"begin with one of {[f'{name}/' for name in evaluations]}")
    return keep, stop
