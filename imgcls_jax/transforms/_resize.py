"""Resizing, as the transforms that change the size share it."""

from typing import Literal

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos3", "area"]


def resize_to(image, height, width, interpolation: str, antialias: bool):
    """u8[h,w,C] -> u8[height,width,C], rounded to the nearest level.

    With antialias the filter is widened where the image shrinks, as Pillow and torchvision do.
    """
    import tensorflow as tf

    resized = tf.image.resize(image, (height, width), interpolation, antialias=antialias)
    return tf.saturate_cast(tf.round(tf.cast(resized, tf.float32)), tf.uint8)
