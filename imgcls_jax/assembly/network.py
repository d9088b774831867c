"""config.model, config.init and what a model sees: its weights, its teacher, its normalisation."""

import contextlib
import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.errors
import jax.numpy as jnp
import numpy as np

from imgcls_jax import config as configs
from imgcls_jax import init, tree
from imgcls_jax.checkpoint import reading
from imgcls_jax.errors import ConfigError
from imgcls_jax.models import MODELS
from imgcls_jax.pretrained import catalogue, load
from imgcls_jax.registry import bind, near
from imgcls_jax.types import ModelSpec, Task


@contextlib.contextmanager
def tracing(where: str):
    """Turns what a model refuses while it is traced into a ConfigError."""
    try:
        yield
    except (ValueError, TypeError, ArithmeticError, flax.errors.FlaxError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(reason[0][:300], where=where,
                          fix="change the argument it names; --debug shows the line") from error


def make(choice: Mapping, classes: int, dtype: str) -> tuple[Any, ModelSpec]:
    """config.model -> (linen module, its facts)."""
    if "dtype" in choice:
        raise ConfigError("the dtype of the model is that of the run", where="config.model.dtype",
                          fix="set config.precision")
    make = MODELS.bind(choice, "config.model")
    with tracing("config.model"):
        module = make(classes, dtype=dtype)
    name = choice["name"]
    return module, ModelSpec(name=name, weights=catalogue.weights(name), **MODELS.facts(name))


@dataclasses.dataclass(frozen=True)
class Net:
    """The model of a run: the shape of an example that it is trained on, (1, H, W, C), the dtype it
    computes in, and (mean, std) of the images it is given."""

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
        with tracing("config.model"):
            return init.abstract(self.module, self.sample, dtype=self.wide)


def as_trained(spec: ModelSpec, choice: Mapping | None) -> ModelSpec:
    """A fine-tuned model keeps the normalisation of its pretrained weights."""
    if choice is None:
        return spec
    weights, *_ = bind(_init, choice, "config.init")()
    given = load.normalisation(weights, spec)
    return dataclasses.replace(spec, mean=given[0], std=given[1]) if given else spec


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


def normaliser(mean, std, dtype: str, *, floats_pass: bool = False):
    """u8[B,H,W,C] -> dtype[B,H,W,C]: (x / 255 - mean) / std, computed in f32 at least.

    floats_pass: images that are floats are taken as normalised already.
    """
    wide = jnp.promote_types(dtype, jnp.float32)
    scale = 1.0 / (255.0 * np.asarray(std, np.float64))
    shift = -np.asarray(mean, np.float64) / np.asarray(std, np.float64)

    def normalise(images):
        if floats_pass and jnp.issubdtype(images.dtype, jnp.floating):
            return images.astype(dtype)
        return (images.astype(wide) * scale.astype(wide) + shift.astype(wide)).astype(dtype)

    return normalise


def _init(*, weights: str, reset: tuple[str, ...] = (), grid: tuple[int, int] | None = None):
    """config.init: a workdir, a file or a published name; reset: what is left as initialised; grid:
    rows and columns of the patches that the positions of a file are for, if it is no square."""
    return weights, reset, grid


def grid(module, image_size) -> tuple[int, int] | None:
    """Rows and columns of the patches of an image (H, W), for a model that has them."""
    return module.grid(*image_size) if hasattr(module, "grid") else None


def find(weights: str | Path, spec: ModelSpec, wanted: Mapping) -> load.Found:
    """As load.read; of a workdir, with the grid of its images."""
    found = load.read(weights, spec, wanted)
    place, _ = load.locate(weights, spec.name)
    if place.is_file():
        return found
    saved = configs.plain(reading.read_config(place / "checkpoints")[0])
    size = saved["preprocessing"]["image_size"]
    module, _ = make(saved["config"]["model"], max(len(saved["classes"]), 1), "float32")
    return dataclasses.replace(found, grid=grid(module, size))


def initial(choice: Mapping, fresh: dict, net: Net) -> tuple[dict, str]:
    """(fresh variables with those of config.init in their place, but for `reset`; what was taken
    over, in words)."""
    weights, reset, told = bind(_init, choice, "config.init")()
    wanted, spec = tree.flatten(fresh), net.spec
    inside = {path.split("/", 1)[1] for path in wanted}
    for prefix in reset:
        if not any(path.startswith(prefix) for path in inside):
            raise ConfigError(f"no variable begins with {prefix!r}", where="config.init.reset",
                              fix=near(prefix, {path.split("/")[0] for path in inside}))
    found = find(weights, spec, wanted)
    found = dataclasses.replace(found, grid=tuple(told)) if told else found
    made = load.into(fresh, found, spec, reset=reset, grid=grid(net.module, net.sample[1:3]))
    new = [path for path in wanted if reset and path.split("/", 1)[1].startswith(tuple(reset))]
    named = "" if Path(weights).exists() else f"{weights}, "
    return made, (f"starts from {named}{found.source}: {len(wanted) - len(new)} of {len(wanted)} "
                  f"arrays; new: {', '.join(new[:8]) or 'none'}")


def teacher(weights: str, task: Task, sample: tuple, mean, std, dtype: str):
    """(apply, shapes of its variables, () -> the variables as numpy) of config.step.teacher.

    apply: (variables, images f[B,H,W,C] normalised by mean and std) -> logits f32[B,K].
    """
    where, name = "config.step.teacher", weights.partition("/")[0]
    choice, kind, classes = {"name": name}, "multiclass", None
    if (Path(weights) / "checkpoints").is_dir():
        saved, _ = reading.read_config(Path(weights) / "checkpoints")
        config = configs.saved(saved["config"])
        choice, kind, classes = config["model"], config["task"], tuple(saved["classes"])
    elif weights.partition("/")[2] not in catalogue.weights(name):
        raise ConfigError(f"{weights!r} is neither a workdir nor published weights", where=where,
                          fix="name one of `imgcls weights list`, as 'resnet50/imagenet1k_v2', or "
                              "make a workdir of a file: imgcls convert")
    module, spec = make(choice, task.outputs, dtype)
    count = len(classes or range(spec.classes))
    if kind != task.kind or count != len(task.classes) or classes not in (None, task.classes):
        raise ConfigError(f"the teacher is {kind} of {count} classes, the run {task.kind} of "
                          f"{len(task.classes)}" + (", which are others" if count == len(
                              task.classes) and kind == task.kind else ""), where=where,
                          fix="take one that was trained on the same classes in the same order")
    given = load.normalisation(weights, spec)
    assert given is not None  # of a workdir and of a published name it is always known
    own_mean, own_std = given
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
        found = find(weights, spec, tree.flatten(shapes))
        return load.into(shapes, found, spec, grid=grid(module, sample[1:3]))

    return apply, shapes, read
