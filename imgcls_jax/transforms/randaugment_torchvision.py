"""RandAugment as in torchvision."""

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Count, Whole
from imgcls_jax.transforms import TRANSFORMS, _operations, _torchvision
from imgcls_jax.transforms._geometry import Interpolation

NAMES = ("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness",
         "Color", "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize")
RANGES = dict(shear=0.3, share=150 / 331, degrees=30, factor=0.9, bits=(8, 4))


@TRANSFORMS.register()
def randaugment_torchvision(*, operations: Count = 2, magnitude: Whole = 9, bins: Count = 31,
                            interpolation: Interpolation = "nearest",
                            fill: int | tuple[int, ...] = 0):
    """u8[H,W,C] -> u8[H,W,C] through `operations` of 14 (one is the identity), drawn uniformly.

    torchvision.transforms.RandAugment: magnitude is one of `bins`, from 0 on; every operation
    changes more at a higher one. fill: level of pixels from outside the image; torchvision's
    default is black.
    """
    if operations < 1 or not 0 <= magnitude < bins or bins < 2:
        raise ConfigError(f"randaugment_torchvision: operations={operations}, "
                          f"magnitude={magnitude}, bins={bins} are not valid",
                          where="config.transforms",
                          fix="use operations >= 1, bins >= 2 and 0 <= magnitude < bins")

    def transform(example, seed):
        run = _torchvision.operations(NAMES, RANGES, bins, interpolation, fill)
        which, rows = draw(seed, operations, magnitude)
        image = _operations.chain(decoding.pixels(example), run, which, rows)
        return {**example, "image": image}

    return transform


def draw(seed, operations: int, magnitude: int):
    """(i32[operations] below 14; f64[operations,2], the magnitude and a sign)."""
    tf = tensorflow()
    uniform = tf.random.stateless_uniform((2, operations), seed)
    signs = _operations.sign(uniform[1])
    rows = tf.stack([tf.fill((operations,), tf.constant(magnitude, tf.float64)), signs], 1)
    return _operations.uniform_index(uniform[0], len(NAMES)), rows
