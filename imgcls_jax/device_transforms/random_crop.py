"""A crop at a random place, on the device."""

import jax
import jax.numpy as jnp

from imgcls_jax.device_transforms import DEVICE_TRANSFORMS, _geometry
from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Count


@DEVICE_TRANSFORMS.register()
def random_crop(*, size: Count | tuple[Count, Count]):
    """u8 levels, [B,H,W,C] -> [B,height,width,C], cropped at another random place for each image.

    size: the side, or (height, width).
    """
    height, width = (size, size) if isinstance(size, int) else size

    def transform(key, images, targets):
        given = images.shape[1:3]
        if not (0 < height <= given[0] and 0 < width <= given[1]):
            raise ConfigError(f"size={size} is larger than the images, {given[0]} x {given[1]}",
                              where="config.device_transforms", fix="use at most their size")

        def places(key, side, whole):
            return jax.random.randint(key, (len(images), 1), 0, whole - side + 1) + jnp.arange(side)

        y_key, x_key = jax.random.split(key)
        rows, columns = places(y_key, height, given[0]), places(x_key, width, given[1])
        return _geometry.pick(images, rows[:, :, None], columns[:, None, :], 0), targets

    transform.levels, transform.size = True, (height, width)
    return transform
