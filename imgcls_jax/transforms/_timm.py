"""The operations of timm's policies: magnitude (0 to 10) and sign -> each operation's argument.

As timm/data/auto_augment.py maps them, with its names. In "...Increasing" a higher magnitude
changes more; in the plain Posterize and Solarize it changes less.
"""

from typing import Literal

from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.transforms import _geometry, _operations

Interpolation = Literal["random", "bilinear", "bicubic"]
MEAN = (124, 116, 104)  # round(255 * mean) of ImageNet, timm's fill color

# name -> (operation, (magnitude / 10, sign) -> argument); all of it f64[].
ARGUMENTS = {
    "AutoContrast": ("autocontrast", lambda level, sign: level),
    "Equalize": ("equalize", lambda level, sign: level),
    "Invert": ("invert", lambda level, sign: level),
    "Rotate": ("rotate", lambda level, sign: sign * (level * 30)),
    "Posterize": ("posterize", lambda level, sign: _int(level * 4)),
    "PosterizeIncreasing": ("posterize", lambda level, sign: 4 - _int(level * 4)),
    "PosterizeOriginal": ("posterize", lambda level, sign: 4 + _int(level * 4)),
    "Solarize": ("solarize", lambda level, sign: _at_most(256, level * 256)),
    "SolarizeIncreasing": ("solarize", lambda level, sign: 256 - _at_most(256, level * 256)),
    "SolarizeAdd": ("solarize_add", lambda level, sign: _at_most(128, level * 110)),
    "Color": ("color", lambda level, sign: level * 1.8 + 0.1),
    "Contrast": ("contrast", lambda level, sign: level * 1.8 + 0.1),
    "Brightness": ("brightness", lambda level, sign: level * 1.8 + 0.1),
    "Sharpness": ("sharpness", lambda level, sign: level * 1.8 + 0.1),
    "ColorIncreasing": ("color", lambda level, sign: _around_one(level, sign)),
    "ContrastIncreasing": ("contrast", lambda level, sign: _around_one(level, sign)),
    "BrightnessIncreasing": ("brightness", lambda level, sign: _around_one(level, sign)),
    "SharpnessIncreasing": ("sharpness", lambda level, sign: _around_one(level, sign)),
    "ShearX": ("shear_x", lambda level, sign: sign * (level * 0.3)),
    "ShearY": ("shear_y", lambda level, sign: sign * (level * 0.3)),
    "TranslateXRel": ("translate_x", lambda level, sign: sign * level),
    "TranslateYRel": ("translate_y", lambda level, sign: sign * level),
}


def operations(names, interpolation: Interpolation, fill: _geometry.Fill, translate: float):
    """(image, row) -> image, by number. row: from `draw`. translate: share of the side at 10."""
    return tuple(_operation(name, interpolation, fill, translate) for name in names)


def _operation(name: str, interpolation: str, fill: _geometry.Fill, translate: float):
    tf = tensorflow()
    kind, argument = ARGUMENTS[name]

    def run(image, row):
        value = argument(row[0] / 10, row[1])
        if kind in _operations.COLOR:
            return _operations.COLOR[kind](image, value)
        if kind.startswith("translate"):
            side = tf.shape(image)[1 if kind == "translate_x" else 0]
            value = value * translate * tf.cast(side, tf.float64)
        geometric = _operations.GEOMETRIC[kind]
        if interpolation != "random":
            return geometric(image, value, interpolation, fill)
        return tf.cond(row[2] < 0.5, lambda: geometric(image, value, "bilinear", fill),
                       lambda: geometric(image, value, "bicubic", fill))

    return run


def draw(uniform, normal, magnitude, std: float, largest: float):
    """f64[L,3]: magnitude, sign, and a number in [0, 1) that chooses the interpolation.

    uniform: f32[L,3]; normal: f32[L]. std: of the magnitude; above 100 the magnitude is uniform
    from 0 to `magnitude`, a number or f64[L]. Clipped to 0 to `largest`.
    """
    tf = tensorflow()
    uniform, normal = tf.cast(uniform, tf.float64), tf.cast(normal, tf.float64)
    magnitudes = magnitude * uniform[:, 0] if std > 100 else magnitude + std * normal
    return tf.stack([tf.clip_by_value(magnitudes, 0, largest), _operations.sign(uniform[:, 1]),
                     uniform[:, 2]], 1)


def _int(value):
    tf = tensorflow()
    return tf.floor(value)


def _at_most(most: int, value):
    tf = tensorflow()
    return tf.minimum(tf.floor(value), tf.constant(most, tf.float64))


def _around_one(level, sign):
    tf = tensorflow()
    return tf.maximum(1 + sign * (level * 0.9), tf.constant(0.1, tf.float64))
