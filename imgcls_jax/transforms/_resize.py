"""Resizing, as the transforms that change the size share it."""

from typing import Literal

from imgcls_jax.errors import ConfigError
from imgcls_jax.transforms import _pillow

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos3", "area"]
Library = Literal["tensorflow", "pillow"]


def resizer(interpolation: str, antialias: bool, library: str):
    """(u8[h,w,C], height, width) -> u8[height,width,C].

    With antialias the filter is widened where the image shrinks. library: "pillow" is Pillow's own
    resizing, to the bit, which torchvision's and timm's weights were measured with: two passes,
    rounded and clipped between. TensorFlow's rounds once.
    """
    if library == "pillow":
        if not antialias:
            raise ConfigError("Pillow always antialiases", where="library='pillow'",
                              fix="leave antialias out, or use library='tensorflow'")
        return _by_pillow(interpolation)

    def resize(image, height, width):
        import tensorflow as tf

        resized = tf.image.resize(image, (height, width), interpolation, antialias=antialias)
        return tf.saturate_cast(tf.round(tf.cast(resized, tf.float32)), tf.uint8)

    return resize


def _by_pillow(interpolation: str):
    def resize(image, height, width):
        import tensorflow as tf

        def call(image, height, width):
            return _pillow.resize(image, int(height), int(width), interpolation)

        resized = tf.numpy_function(call, [image, height, width], tf.uint8)
        return tf.ensure_shape(resized, (None, None, image.shape[-1]))

    return resize
