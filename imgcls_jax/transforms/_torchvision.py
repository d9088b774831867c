"""The operations of torchvision's policies: a magnitude's number and a sign -> the argument.

As torchvision/transforms/autoaugment.py maps them, with its names. Magnitudes are `bins` numbers,
the first of which changes nothing, in f32 as there.
"""

import numpy as np

from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.transforms import _geometry, _operations

SIGNED = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color",
          "Contrast", "Sharpness")
KINDS = {"Identity": "identity", "ShearX": "shear_x", "ShearY": "shear_y",
         "TranslateX": "translate_x", "TranslateY": "translate_y", "Rotate": "rotate",
         "Brightness": "brightness", "Color": "color", "Contrast": "contrast",
         "Sharpness": "sharpness", "Posterize": "posterize", "Solarize": "solarize",
         "AutoContrast": "autocontrast", "Equalize": "equalize", "Invert": "invert"}


def operations(names, ranges: dict, bins: int, interpolation: _geometry.Interpolation,
               fill: _geometry.Fill):
    """(image, row) -> image by number. row: f64[2], number of the magnitude, sign.

    ranges: shear, pixels or share (of the side, of a translation), degrees, factor, (first bits,
    how many fewer).
    """
    made = []
    for name in names:
        kind = KINDS[name]
        if kind.startswith("translate"):
            run = _translation(kind, ranges, bins, interpolation, fill)
        elif kind in _operations.GEOMETRIC:
            most = ranges["degrees" if kind == "rotate" else "shear"]
            run = _geometric(kind, linspace(0, most, bins), interpolation, fill)
        else:
            run = _color(kind, _levels(kind, ranges, bins))
        made.append(run)
    return tuple(made)


def linspace(start: float, end: float, bins: int) -> np.ndarray:
    """f64[bins], rounded to f32 where torch.linspace does: the step and the results, no products.

    0 to 32 in 30 steps is 15.999999 in the middle: a translation by 15 pixels there.
    """
    start, end, number = np.float32(start), np.float32(end), np.arange(bins, dtype=np.float64)
    step = np.float64((end - start) / np.float32(bins - 1))
    values = np.where(number < bins // 2, start + step * number, end - step * (bins - 1 - number))
    return values.astype(np.float32).astype(np.float64)


def _levels(kind: str, ranges: dict, bins: int) -> np.ndarray:
    if kind == "solarize":
        return linspace(255, 0, bins)
    if kind == "posterize":
        first, fewer = ranges["bits"]
        return first - np.round(np.arange(bins) / ((bins - 1) / fewer))
    if kind in ("brightness", "color", "contrast", "sharpness"):
        return linspace(0, ranges["factor"], bins)
    return np.zeros(bins)


def _color(kind: str, levels: np.ndarray):
    tf = tensorflow()
    def run(image, row):
        level = tf.gather(levels, tf.cast(row[0], tf.int32))
        if kind in ("brightness", "color", "contrast", "sharpness"):
            level = 1 + row[1] * level
        return _operations.COLOR[kind](image, level)

    return run


def _geometric(kind: str, levels: np.ndarray, *how):
    tf = tensorflow()
    def run(image, row):
        level = row[1] * tf.gather(levels, tf.cast(row[0], tf.int32))
        return _operations.GEOMETRIC[kind](image, level, *how)

    return run


def _translation(kind: str, ranges: dict, bins: int, *how):
    """By whole pixels; to the right, or downwards, where the sign is 1."""
    tf = tensorflow()
    def run(image, row):
        side = tf.cast(tf.shape(image)[1 if kind == "translate_x" else 0], tf.float64)
        most = ranges["share"] * side if "share" in ranges else ranges["pixels"]
        most = tf.cast(most, tf.float32)  # rounded in the same places as in `linspace`
        most, step = tf.cast(most, tf.float64), tf.cast(most / (bins - 1), tf.float64)
        pixels = tf.where(row[0] < bins // 2, step * row[0], most - step * (bins - 1 - row[0]))
        pixels = tf.cast(tf.floor(tf.cast(pixels, tf.float32)), tf.float64)
        return _operations.GEOMETRIC[kind](image, -row[1] * pixels, *how)

    return run
