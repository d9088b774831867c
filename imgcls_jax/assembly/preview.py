"""What the device transforms of a config make of images, to be looked at without a model."""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from imgcls_jax.assembly import inputs, network
from imgcls_jax.device_transforms import DEVICE_TRANSFORMS
from imgcls_jax.models import MODELS
from imgcls_jax.types import ModelSpec, Source


def device_transforms(config: Mapping, source: Source, seed: int) -> Callable:
    """(step, images u8[B,H,W,C], targets f32[B,K]) -> the same after config.device_transforms.

    They see images that are normalised as in training, and draw the numbers that a step of a run
    with this seed draws; the images come back as levels of 0 to 255.
    """
    if not config["device_transforms"]:
        return lambda step, images, targets: (images, targets)
    transforms = inputs.chain(config["device_transforms"], DEVICE_TRANSFORMS,
                              "config.device_transforms")
    model = config["model"]["name"]
    spec = ModelSpec(name=model, **MODELS.facts(model))
    mean, std = network.statistics(config["data"], spec, source.channels)
    augment = inputs.preparation(transforms, network.normaliser(mean, std, "float32"))

    @jax.jit
    def prepare(step, images, targets):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), 1)
        return augment(key, images, targets)

    def as_levels(step, images, targets):
        images, targets = map(np.asarray, prepare(step, images, targets))
        levels = (images * np.array(std) + np.array(mean)) * 255
        return np.clip(np.round(levels), 0, 255).astype(np.uint8), targets

    return as_levels
