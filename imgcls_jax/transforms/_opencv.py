"""Resizing as OpenCV does it to u8 images, in TensorFlow; OpenCV itself is not needed.

A pixel is a weighted sum of `taps` along each axis. Unlike in Pillow, filters are not widened when
the image shrinks (only "area" averages), `nearest` does not use the centers of pixels, and weights
are multiples of 1/2048 (opencv/modules/imgproc/src/resize.cpp).
"""

import math

from imgcls_jax.data.decoding.tensorflow import tensorflow

UNIT = 2048  # of a weight
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos4", "area")


def resize(image, height, width, interpolation: str):
    """u8[h,w,C] -> u8[height,width,C]. height, width: i32[]."""
    tf = tensorflow()
    before, after = tf.shape(image)[:2], tf.stack([height, width])
    if interpolation == "nearest":
        rows, columns = (_nearest(before[axis], after[axis]) for axis in (0, 1))
        return tf.gather(tf.gather(image, rows), columns, axis=1)
    if interpolation == "area":
        # If the image grows along one axis, both are interpolated.
        return tf.cond(tf.reduce_all(before >= after),
                       lambda: _weighted(image, before, after, _area, 1),
                       lambda: _weighted(image, before, after, _enlarged, UNIT))
    taps = {"bilinear": _bilinear, "bicubic": _bicubic, "lanczos4": _lanczos4}[interpolation]
    return _weighted(image, before, after, taps, UNIT)


def _weighted(image, before, after, taps, unit: int):
    """Sums over the taps of each axis, their weights rounded to 1 / unit; not rounded if unit = 1.

    taps: (pixels before, pixels after) -> (i32[after,k] pixels, f32[after,k] weights).
    """
    tf = tensorflow()
    # Rows first, so that only the needed ones are read; in f32 the first of two sums is exact.
    for axis in (0, 1):
        pixels, weights = taps(before[axis], after[axis])
        weights = tf.round(weights * unit) if unit > 1 else weights
        taken = tf.cast(tf.gather(image, tf.clip_by_value(pixels, 0, before[axis] - 1), axis=axis),
                        tf.float32)
        image = tf.einsum("okwc,ok->owc" if axis == 0 else "hokc,ok->hoc", taken, weights)
    return tf.saturate_cast(tf.round(image / unit**2), tf.uint8)


def _scale(before, after):
    """f64[]: pixels before per pixel after."""
    tf = tensorflow()
    # The inverse of its inverse, as in OpenCV: before / after rounds differently (11 to 10.99).
    return 1 / (tf.cast(after, tf.float64) / tf.cast(before, tf.float64))


def _nearest(before, after):
    tf = tensorflow()
    place = tf.floor(tf.range(tf.cast(after, tf.float64), dtype=tf.float64) * _scale(before, after))
    return tf.minimum(tf.cast(place, tf.int32), before - 1)


def _places(before, after):
    """(i32[after] pixel to the left of each center, f32[after] distance from it, 0 to 1)."""
    tf = tensorflow()
    centers = tf.range(tf.cast(after, tf.float64), dtype=tf.float64) + 0.5
    places = tf.cast(centers * _scale(before, after) - 0.5, tf.float32)
    left = tf.floor(places)
    return tf.cast(left, tf.int32), places - left


def _around(left, first: int, count: int):
    """i32[after,count]: pixels from left + first on."""
    tf = tensorflow()
    return left[:, None] + tf.range(first, first + count)


def _bilinear(before, after):
    tf = tensorflow()
    left, way = _places(before, after)
    return _around(left, 0, 2), tf.stack([1 - way, way], 1)


def _bicubic(before, after):
    """The cubic of Keys with a = -0.75; Pillow and TensorFlow have -0.5."""
    tf = tensorflow()
    a, (left, way) = -0.75, _places(before, after)
    near = [((a + 2) * d - (a + 3)) * d * d + 1 for d in (way, 1 - way)]
    far = ((a * (way + 1) - 5 * a) * (way + 1) + 8 * a) * (way + 1) - 4 * a
    return _around(left, -1, 4), tf.stack([far, *near, 1 - far - near[0] - near[1]], 1)


def _lanczos4(before, after):
    tf = tensorflow()
    left, way = _places(before, after)
    distance = math.pi * (way[:, None] - tf.range(-3.0, 5.0))
    # At a pixel it would be 0 / 0; there both sines are proportional to the distance.
    distance = tf.where(tf.abs(distance) < 1e-6, 1e-6, distance)
    weights = tf.sin(distance) * tf.sin(distance / 4) / distance**2
    return _around(left, -3, 8), weights / tf.reduce_sum(weights, 1, keepdims=True)


def _area(before, after):
    """Each pixel counts by how much of it is covered."""
    tf = tensorflow()
    scale = _scale(before, after)
    start = tf.range(tf.cast(after, tf.float64), dtype=tf.float64) * scale
    count = tf.cast(tf.math.ceil(scale), tf.int32) + 1
    pixels = _around(tf.cast(tf.floor(start), tf.int32), 0, count)
    left = tf.cast(pixels, tf.float64)
    covered = (tf.minimum(left + 1, start[:, None] + scale) - tf.maximum(left, start[:, None]))
    return pixels, tf.cast(tf.maximum(covered, 0) / scale, tf.float32)


def _enlarged(before, after):
    """Bilinear between the edges of pixels, which keeps each pixel sharp."""
    tf = tensorflow()
    scale, number = _scale(before, after), tf.range(tf.cast(after, tf.float64), dtype=tf.float64)
    left = tf.floor(number * scale)
    way = tf.cast(number + 1 - (left + 1) / scale, tf.float32)
    way = tf.where(way <= 0, 0.0, way - tf.floor(way))
    return _around(tf.cast(left, tf.int32), 0, 2), tf.stack([1 - way, way], 1)
