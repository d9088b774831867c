"""RandAugment on the device: the operations of the host transform, in the same distribution."""

import math

import jax
import numpy as np

from imgcls_jax.device_transforms import DEVICE_TRANSFORMS, _geometry
from imgcls_jax.device_transforms._policy import Away, Operation, Policy, Stretch
from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Count, NotNegative


@DEVICE_TRANSFORMS.register()
def randaugment(*, operations: Count = 2, magnitude: NotNegative = 10):
    """u8 levels through `operations` out of 16, drawn uniformly per image (arXiv 1909.13719).

    The operations, their pixels and what a magnitude means are those of the host transform of this
    name, which follows big_vision.
    """
    if operations < 1 or magnitude < 0:
        raise ConfigError(f"randaugment: operations={operations}, magnitude={magnitude} too small",
                          where="config.device_transforms",
                          fix="use operations >= 1, magnitude >= 0")

    def transform(key, images, targets):
        one = policy(magnitude / 10, *images.shape[1:3])
        for layer in jax.random.split(key, operations):
            images = one(layer, images)
        return images, targets

    transform.levels = True
    return transform


def policy(level: float, height: int, width: int) -> Policy:
    """Every operation twice, because the geometric ones have a sign."""
    return Policy([operation for sign in (1, -1) for operation in _operations(
        level, np.float32(sign), height, width)], _geometry.rounded, np.float32, 128)


def _operations(level: float, sign: np.float32, height: int, width: int) -> tuple[Operation, ...]:
    """In the order of the host transform; matrices in f32, as TensorFlow computes them there."""
    shear, pixels = sign * np.float32(0.3) * np.float32(level), sign * 100 * np.float32(level)
    factor = 0.1 + 1.8 * level
    return (
        Operation(stretch=Stretch.AUTOCONTRAST),
        Operation(stretch=Stretch.EQUALIZE),
        Operation(invert_from=0),
        Operation(matrix=_rotation(sign * 30 * np.float32(level), height, width)),
        Operation(keep=256 - (256 >> min(max(int(4 * level), 1), 8))),
        Operation(invert_from=int(256 * level) % 256),
        Operation(away=Away.LUMA, factor=factor),
        Operation(away=Away.MEAN, factor=factor),
        Operation(away=Away.BLACK, factor=factor),
        Operation(away=Away.SMOOTH, factor=factor),
        Operation(matrix=(1, shear, 0, 0, 1, 0)),
        Operation(matrix=(1, 0, 0, shear, 1, 0)),
        Operation(matrix=(1, 0, pixels, 0, 1, 0)),
        Operation(matrix=(1, 0, 0, 0, 1, pixels)),
        Operation(half=int(40 * level)),
        Operation(add=int(110 * level)))


def _rotation(degrees: np.float32, height: int, width: int):
    """Around the center, which is at (side - 1) / 2."""
    angle = degrees * np.float32(math.pi) / np.float32(180)
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = np.float32(width - 1), np.float32(height - 1)
    return (cos, -sin, (x - cos * x + sin * y) / 2, sin, cos, (y - sin * x - cos * y) / 2)
