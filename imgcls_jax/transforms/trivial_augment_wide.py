"""TrivialAugment, wide."""

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Count
from imgcls_jax.transforms import TRANSFORMS, _operations, _torchvision
from imgcls_jax.transforms._geometry import Interpolation
from imgcls_jax.transforms.randaugment_torchvision import NAMES

RANGES = dict(shear=0.99, pixels=32, degrees=135, factor=0.99, bits=(8, 6))


@TRANSFORMS.register()
def trivial_augment_wide(*, bins: Count = 31, interpolation: Interpolation = "nearest",
                         fill: int | tuple[int, ...] = 0):
    """u8[H,W,C] -> u8[H,W,C] through one of 14 operations, at one of `bins` magnitudes.

    arXiv 2103.10158, as torchvision.transforms.TrivialAugmentWide. fill: level of pixels from
    outside the image.
    """
    if bins < 2:
        raise ConfigError(f"trivial_augment_wide: bins={bins} is too small",
                          where="config.transforms", fix="use bins >= 2")

    def transform(example, seed):
        run = _torchvision.operations(NAMES, RANGES, bins, interpolation, fill)
        image = _operations.chain(decoding.pixels(example), run, *draw(seed, bins))
        return {**example, "image": image}

    return transform


def draw(seed, bins: int):
    """(i32[1] below 14; f64[1,2], number of the magnitude and sign)."""
    tf = tensorflow()
    uniform = tf.random.stateless_uniform((3, 1), seed)
    number = tf.cast(_operations.uniform_index(uniform[1], bins), tf.float64)
    rows = tf.stack([number, _operations.sign(uniform[2])], 1)
    return _operations.uniform_index(uniform[0], len(NAMES)), rows
