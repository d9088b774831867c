"""Random horizontal flip on the device."""

import jax
import jax.numpy as jnp

from imgcls_jax.device_transforms import DEVICE_TRANSFORMS
from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Share


@DEVICE_TRANSFORMS.register()
def flip(*, p: Share = 0.5):
    """u8 levels, each image mirrored left to right with probability p."""
    if not 0 <= p <= 1:
        raise ConfigError(f"flip: p={p} is out of range",
                          where="config.device_transforms", fix="use 0 to 1")

    def transform(key, images, targets):
        mirrored = jax.random.bernoulli(key, p, (len(images), 1, 1, 1))
        return jnp.where(mirrored, images[:, :, ::-1], images), targets

    transform.levels = True
    return transform
