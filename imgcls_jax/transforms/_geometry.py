"""Geometric operations of the automatic augmentations, u8[H,W,C] -> u8[H,W,C].

Pixels are taken from the nearest place; what comes from outside the image is gray.
"""

import math

GRAY = 128


def rotate(image, degrees):
    """Counterclockwise, about the center."""
    import tensorflow as tf

    last = tf.cast(tf.shape(image)[:2] - 1, tf.float32)  # the center is at last / 2
    cos, sin = tf.cos(degrees * math.pi / 180), tf.sin(degrees * math.pi / 180)
    return _affine(image, ((cos, -sin, (last[1] - cos * last[1] + sin * last[0]) / 2),
                           (sin, cos, (last[0] - sin * last[1] - cos * last[0]) / 2)))


def shear_x(image, level):
    """Row y moves left by level * y: the top row stays."""
    return _affine(image, ((1, level, 0), (0, 1, 0)))


def shear_y(image, level):
    """Column x moves up by level * x: the left column stays."""
    return _affine(image, ((1, 0, 0), (level, 1, 0)))


def translate_x(image, pixels):
    """To the left."""
    return _affine(image, ((1, 0, pixels), (0, 1, 0)))


def translate_y(image, pixels):
    """Upwards."""
    return _affine(image, ((1, 0, 0), (0, 1, pixels)))


def cutout(image, half: int, place):
    """A gray square of side 2 * half (arXiv 1708.04552), cut off where it leaves the image.

    place: f32[2] in [0, 1), of its center.
    """
    import tensorflow as tf

    shape = tf.shape(image)[:2]
    center = tf.cast(place * tf.cast(shape, tf.float32), tf.int32)
    return tf.where(inside(shape, center - half, center + half), tf.constant(GRAY, tf.uint8), image)


def inside(shape, corner, opposite):
    """bool[H,W,1]: true from corner (top, left) up to, but not at, the opposite one."""
    import tensorflow as tf

    rows, columns = tf.range(shape[0])[:, None, None], tf.range(shape[1])[None, :, None]
    return ((corner[0] <= rows) & (rows < opposite[0])
            & (corner[1] <= columns) & (columns < opposite[1]))


def _affine(image, matrix):
    """Pixel (x, y) of the result is the one at matrix @ (x, y, 1) of the image."""
    import tensorflow as tf

    transform = tf.stack([tf.cast(entry, tf.float32) for row in matrix for entry in row] + [0., 0.])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None], transforms=transform[None], output_shape=tf.shape(image)[:2],
        fill_value=float(GRAY), interpolation="NEAREST", fill_mode="CONSTANT")[0]
