"""TrivialAugment on the device: one operation per image, with a random strength."""

import math

import numpy as np

from imgcls_jax.device_transforms import DEVICE_TRANSFORMS, _geometry
from imgcls_jax.device_transforms._policy import Away, Operation, Policy, Stretch
from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Count


@DEVICE_TRANSFORMS.register()
def trivial_augment_wide(*, bins: Count = 31, fill: int = 0):
    """u8 levels through one of 14 operations with a random strength (arXiv 2103.10158).

    Operations, strengths and pixels are those of torchvision.transforms.TrivialAugmentWide on
    Pillow images, with the nearest pixel. bins: number of strengths of each operation. fill: the
    level of pixels from outside the image.
    """
    if bins < 2 or not 0 <= fill <= 255:
        raise ConfigError(
            f"trivial_augment_wide: bins={bins} or fill={fill} is out of range",
            where="config.device_transforms", fix="use at least 2 bins, fill of 0 to 255")

    def transform(key, images, targets):
        return policy(bins, fill, *images.shape[1:3])(key, images), targets

    transform.levels = True
    return transform


def policy(bins: int, fill: int, height: int, width: int) -> Policy:
    """Every operation with every strength, twice, because some have a sign."""
    return Policy([operation for sign in (1, -1) for i in range(bins)
                   for operation in _operations(i, bins - 1, sign, height, width)],
                  _geometry.fixed, _geometry.to_fixed, fill)


def _operations(i: int, last: int, sign: int, height: int, width: int) -> tuple[Operation, ...]:
    """The operations with strength i of 0 to `last`."""
    of_99, pixels = sign * _strength(0.99, i, last), -sign * int(_strength(32, i, last))
    return (
        Operation(),
        Operation(matrix=(1, of_99, 0, 0, 1, 0)),
        Operation(matrix=(1, 0, 0, of_99, 1, 0)),
        Operation(matrix=(1, 0, pixels, 0, 1, 0)),
        Operation(matrix=(1, 0, 0, 0, 1, pixels)),
        Operation(matrix=_geometry.turned(sign * _strength(135, i, last), height, width)),
        *(Operation(away=away, factor=1 + of_99)
          for away in (Away.BLACK, Away.LUMA, Away.MEAN, Away.SMOOTH)),
        Operation(keep=256 - (256 >> (8 - int(np.round(i / (last / 6)))))),
        Operation(invert_from=math.ceil(255 - 255 * i / last)),
        Operation(stretch=Stretch.AUTOCONTRAST),
        Operation(stretch=Stretch.EQUALIZE))


def _strength(most: float, i: int, last: int) -> float:
    """i / last of `most`, to the digit of torch's f32 linspace: it counts from both ends, and half
    of 32 pixels is 15.999999, which translates by 15."""
    most = float(np.float32(most))
    step = float(np.float32(most / last))
    return float(np.float32(step * i if i < (last + 1) // 2 else most - step * (last - i)))
