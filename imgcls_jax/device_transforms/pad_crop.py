"""Pad, then crop back at a random place, on the device."""

from typing import Literal

import jax
import jax.numpy as jnp

from imgcls_jax.device_transforms import DEVICE_TRANSFORMS, _geometry
from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Whole


@DEVICE_TRANSFORMS.register()
def pad_crop(*, padding: Whole, mode: Literal["zero", "reflect"] = "zero"):
    """u8 levels, each image shifted by up to `padding` pixels each way (arXiv 1512.03385, 4.2).

    mode: what the border is filled with.
    """
    if padding < 1:
        raise ConfigError(f"pad_crop: padding={padding} is too small",
                          where="config.device_transforms",
                          fix="use 1 or more, or leave pad_crop out")

    def transform(key, images, targets):
        examples, height, width, _ = images.shape
        if mode == "reflect" and padding >= min(height, width):
            raise ConfigError(f"padding={padding} is too large for images of {height} x {width}",
                              where="config.device_transforms",
                              fix="use less than the shorter side, or mode='zero'")

        def places(key, size):
            shift = jax.random.randint(key, (examples, 1), -padding, padding + 1)
            place = shift + jnp.arange(size)
            return size - 1 - jnp.abs(size - 1 - jnp.abs(place)) if mode == "reflect" else place

        y_key, x_key = jax.random.split(key)
        rows, columns = places(y_key, height), places(x_key, width)
        return _geometry.pick(images, rows[:, :, None], columns[:, None, :], 0), targets

    transform.levels = True
    return transform
