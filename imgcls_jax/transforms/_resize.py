"""Resizing, shared by the transforms that change the size."""

import functools
from typing import Literal

from imgcls_jax.data.decoding import pillow
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import ConfigError
from imgcls_jax.transforms import _opencv

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos3", "lanczos4", "area"]
Library = Literal["tensorflow", "pillow", "opencv"]

KINDS = {"tensorflow": ("nearest", "bilinear", "bicubic", "lanczos3", "area"),
         "pillow": tuple(pillow.FILTERS), "opencv": _opencv.INTERPOLATIONS}


def resizer(interpolation: str, antialias: bool | None, library: str):
    """(u8[h,w,C], height, width) -> u8[height,width,C].

    With antialias the filter is widened when the image shrinks; None: the library's default.
    library: "pillow" equals Pillow's resizing exactly, which torchvision's and timm's weights were
    measured with: two passes, rounded and clipped in between; always antialiased. "opencv" is
    within one level of cv2.resize, never antialiased (its "area" averages). "tensorflow" is
    tf.image.resize, rounded once; antialiased by default.
    """
    if interpolation not in KINDS[library]:
        raise ConfigError(f"{library} has no interpolation {interpolation!r}",
                          where=f"library={library!r}",
                          fix=f"use one of {', '.join(KINDS[library])}")
    if library == "tensorflow":
        return functools.partial(_by_tensorflow, interpolation, antialias is not False)
    if antialias is (library == "opencv"):
        raise ConfigError(f"{library} {'never' if antialias else 'always'} antialiases",
                          where=f"library={library!r}",
                          fix="leave antialias out, or use library='tensorflow'")
    if library == "opencv":
        return functools.partial(_opencv.resize, interpolation=interpolation)
    return functools.partial(_by_pillow, interpolation)


def _by_tensorflow(interpolation: str, antialias: bool, image, height, width):
    tf = tensorflow()
    resized = tf.image.resize(image, (height, width), interpolation, antialias=antialias)
    if resized.dtype == tf.uint8:  # nearest
        return resized
    if interpolation in ("bicubic", "lanczos3"):  # only these leave the range
        resized = tf.clip_by_value(resized, 0, 255)
    return tf.cast(resized + 0.5, tf.uint8)


def _by_pillow(interpolation: str, image, height, width):
    tf = tensorflow()
    def call(image, height, width):
        return pillow.resize(image, int(height), int(width), interpolation)

    resized = tf.numpy_function(call, [image, height, width], tf.uint8)
    return tf.ensure_shape(resized, (None, None, image.shape[-1]))
