"""The model of a workdir or of a file, as the config that it was trained or measured with says."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from imgcls_jax import config as configs
from imgcls_jax import init, tasks, tree
from imgcls_jax.assembly import network
from imgcls_jax.assembly.inputs import chain
from imgcls_jax.errors import ConfigError
from imgcls_jax.models import MODELS
from imgcls_jax.parallel import processes
from imgcls_jax.pretrained import classes
from imgcls_jax.pretrained import load as pretrained
from imgcls_jax.transforms import TRANSFORMS
from imgcls_jax.types import ModelSpec


@dataclasses.dataclass(frozen=True, repr=False)
class Trained:
    """A model with all that its answers need.

    module, variables: the linen module and what its `apply` takes. labels: class names; those of
    ImageNet are words, as "tabby", where the data has WordNet ids.
    preprocessing: eval transforms as the config has them, mean, std, channels, image size. kind: of
    the task. step: of the checkpoint, where it is of one.
    """

    module: Any
    variables: Mapping
    spec: ModelSpec
    labels: tuple[str, ...]
    preprocessing: Mapping
    kind: str = "multiclass"
    step: int | None = None

    def __repr__(self) -> str:
        height, width = self.preprocessing["image_size"]
        return (f"<{type(self).__name__} {self.spec.name}: "
                f"{tree.count(self.variables['params']):,} parameters, {self.kind}, "
                f"{len(self.labels):,} classes, images of {height} x {width}>")


def of_checkpoint(weights: Mapping, saved: Mapping) -> Trained:
    """weights, saved: as of checkpoint.reading.restore_weights; the moving average where there is
    one."""
    config = configs.saved(saved["config"])
    labels, kind = classes.named(saved["classes"]), config["task"]
    dtype = processes.compute_dtype(config["precision"])
    module, spec = network.make(config["model"], tasks.outputs(kind, len(labels)), dtype)
    values = weights.get("ema") or weights
    return Trained(module, {"params": values["params"], **values["model_state"]}, spec, labels,
                   configs.plain(saved["preprocessing"]), kind)


def of_weights(weights: str | Path, model: str | None = None, *, outputs: int | None = None
               ) -> Trained:
    """Weights without a run, with the preprocessing that they were measured with, as far as that is
    known, else that of the model (pretrained.load.settings).

    weights: a published name or a file. model: its name, not needed for what is published. outputs:
    0 for a model without a head. Raises as `of_file`, and ConfigError where the model is not known.
    """
    name = pretrained.model_of(weights, model)
    settings = pretrained.settings(weights, ModelSpec(name=name, **MODELS.facts(name)))
    return of_file(weights, {**settings, "model": {"name": name, **settings["model"]},
                             "precision": "auto"}, outputs=outputs)


def of_file(file: str | Path, config: Mapping, *, outputs: int | None = None) -> Trained:
    """The model of `config.model` with published weights, and the preprocessing of the config.

    file: as of pretrained.load.locate. config: model, data, eval_transforms and precision.

    As many classes as the head in the file has: 1,000 are those of ImageNet, others are named by
    number. Raises CheckpointError if the file does not fit, ConfigError for a config that cannot
    be.
    """
    transforms = chain(config["eval_transforms"], TRANSFORMS, "config.eval_transforms")
    channels = config["data"].get("channels", 3)
    size = next((t.size for t in reversed(transforms) if getattr(t, "size", None)), None)
    if size is None:
        raise ConfigError("the images have no one size", where="config.eval_transforms",
                          fix="end with a transform that gives one, such as center_crop")
    dtype = processes.compute_dtype(config["precision"])

    def fresh(outputs: int):
        module, spec = network.make(config["model"], outputs, dtype)
        with network.tracing("config.model"):
            return module, spec, init.abstract(module, (1, *size, channels))

    module, spec, shapes = fresh(1000 if outputs is None else outputs)
    found = pretrained.read(file, spec, tree.flatten(shapes))
    head = found.leaves.get(f"params/{spec.head}/kernel")
    if outputs is None and head is not None and head.shape[-1] != 1000:
        module, spec, shapes = fresh(head.shape[-1])
    variables = pretrained.into(shapes, found, spec, grid=network.grid(module, size))
    mean, std = network.statistics(config["data"], spec, channels)
    kernel = tree.flatten(shapes).get(f"params/{spec.head}/kernel")
    labels = classes.numbered(kernel.shape[-1]) if kernel is not None else ()
    return Trained(module, variables, spec, labels, {
        "transforms": config["eval_transforms"], "mean": mean, "std": std, "channels": channels,
        "image_size": size})


def preprocess(preprocessing: Mapping) -> list[Callable]:
    """The host transforms of a Trained's preprocessing."""
    return chain(preprocessing["transforms"], TRANSFORMS, "transforms")
