"""Random erasing: a rectangle of an image is overwritten."""

import math
from typing import Literal

import jax
import jax.numpy as jnp

from imgcls_jax.device_transforms import DEVICE_TRANSFORMS
from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Count, Positive, Share

ATTEMPTS = 10  # to draw a rectangle that fits, as in timm and torchvision


@DEVICE_TRANSFORMS.register()
def random_erasing(*, p: Share = 0.5, scale: tuple[Share, Share] = (0.02, 1 / 3),
                   ratio: tuple[Positive, Positive] = (0.3, 1 / 0.3),
                   mode: Literal["const", "rand", "pixel"] = "const",
                   value: float | tuple[float, ...] = 0.0, count: Count = 1):
    """Overwrites a rectangle in a share p of the normalised images (arXiv 1708.04896).

    Its area is uniform in `scale` times the image's, height / width log-uniform in `ratio`. Of
    `count` rectangles, which may overlap, each has 1 / count of such an area. mode, as in timm:
    const: `value`, one number or one per channel; rand: one normal color per rectangle; pixel:
    normal noise. torchvision's: mode const, or pixel for its value "random", and ratio (0.3, 3.3).
    """
    if not 0 <= p <= 1 or count < 1 or not 0 < scale[0] <= scale[1] <= 1 \
            or not 0 < ratio[0] <= ratio[1]:
        raise ConfigError(f"random_erasing: p={p}, scale={scale}, ratio={ratio}, count={count} "
                          "are not valid", where="config.device_transforms",
                          fix="use p of 0 to 1, scale within 0 to 1 and ratio above 0, each "
                              "(low, high), and count >= 1")

    def transform(key, images, targets):
        keys = jax.random.split(key, 3)
        examples, height, width, channels = images.shape
        if mode == "const" and isinstance(value, tuple | list) and len(value) != channels:
            raise ConfigError(f"value={value} does not fit {channels} channels",
                              where="config.device_transforms", fix="give a number per channel")
        erased = jax.random.bernoulli(keys[0], p, (examples,))
        fills = {
            "const": lambda: jnp.broadcast_to(jnp.asarray(value, jnp.float32), (1, 1, channels)),
            "rand": lambda: jax.random.normal(keys[1], (examples, count, 1, 1, channels)),
            "pixel": lambda: jax.random.normal(keys[1], images.shape)}
        fill = fills[mode]().astype(images.dtype)
        rectangles = _rectangles(keys[2], (examples, count), height, width, scale, ratio)
        for i in range(count):
            inside = erased[:, None, None] & rectangles[:, i]
            images = jnp.where(inside[..., None], fill[:, i] if mode == "rand" else fill, images)
        return images, targets

    return transform


def _rectangles(key, draws: tuple[int, int], height: int, width: int, scale, ratio):
    """bool[*draws,H,W]: true inside; the last axis of draws shares the area. Empty if none fits."""
    keys, shape = jax.random.split(key, 4), (*draws, ATTEMPTS)
    area = jax.random.uniform(keys[0], shape, minval=scale[0], maxval=scale[1])
    area = area * (height * width / draws[-1])
    aspect = jnp.exp(jax.random.uniform(keys[1], shape, minval=math.log(ratio[0]),
                                        maxval=math.log(ratio[1])))
    tall = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
    wide = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
    fits = (tall < height) & (wide < width)
    first = jnp.argmax(fits, -1, keepdims=True) == jnp.arange(ATTEMPTS)
    tall, wide = (jnp.where(first & fits, side, 0).sum(-1) for side in (tall, wide))
    top = jax.random.randint(keys[2], draws, 0, height - tall + 1)[..., None]
    left = jax.random.randint(keys[3], draws, 0, width - wide + 1)[..., None]
    rows, columns = jnp.arange(height), jnp.arange(width)
    return (((top <= rows) & (rows < top + tall[..., None]))[..., :, None]
            & ((left <= columns) & (columns < left + wide[..., None]))[..., None, :])
