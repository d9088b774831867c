"""Gaussian blurs, u8[H,W,C] -> u8[H,W,C]: Pillow's and torchvision's."""

import math

from imgcls_jax.data.decoding.tensorflow import tensorflow


def by_boxes(image, sigma, largest: float):
    """Pillow's GaussianBlur(sigma): three box filters along each axis, each rounded to u8.

    sigma: f32[] of at most `largest`, in pixels. A box includes a fraction of one more pixel at
    both ends; edges are repeated (libImaging/BoxBlur.c).
    """
    tf = tensorflow()
    # Weights are multiples of 2^-24, from a box size computed in f32, and sums fill 32 bits: with
    # sigma 0.5 every 24th sum is exactly a half, which a less exact sum rounds either way.
    sigma = tf.cast(sigma, tf.float32)
    # Not `/`: the optimizer of graphs makes it a product with 1/3, which is rounded otherwise.
    variance = tf.math.divide_no_nan(sigma * sigma, 3.0)  # of one box
    whole = tf.floor((tf.sqrt(12 * variance + 1) - 1) / 2)
    fraction = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    fraction /= 6 * (variance - (whole + 1) * (whole + 1))
    inner = tf.cast(2.0**24 / ((whole + fraction) * 2 + 1), tf.int32)
    whole = tf.cast(whole, tf.int32)
    outer = (2**24 - (2 * whole + 1) * inner) // 2
    reach = math.floor((math.sqrt(4 * largest**2 + 1) - 1) / 2) + 1
    distances = tf.range(reach + 1)
    weights = tf.where(distances <= whole, inner, tf.where(distances == whole + 1, outer, 0))
    weights = tf.unstack(tf.cast(weights, tf.uint32))

    channels = image.shape[-1]
    levels = tf.cast(tf.reshape(image, (tf.shape(image)[0], -1)), tf.uint32)
    for axis in (1, 1, 1, 0, 0, 0):
        step = channels if axis else 1
        ends = _end(levels, 0, step, axis), _end(levels, -step, step, axis)
        wide = tf.concat([ends[0]] * reach + [levels] + [ends[1]] * reach, axis)
        total = _weighted(wide, weights, axis, step) + tf.constant(1 << 23, tf.uint32)
        levels = tf.bitwise.right_shift(total, tf.constant(24, tf.uint32))
    return tf.reshape(tf.cast(levels, tf.uint8), tf.shape(image))


def by_kernel(image, sigma, size: int):
    """torchvision's gaussian_blur: one kernel of `size` pixels along each axis, rounded once.

    sigma: f32[]. Edges are mirrored; both sides of the image must be longer than size // 2.
    """
    tf = tensorflow()
    half, channels = size // 2, image.shape[-1]
    kernel = tf.exp(-0.5 * (tf.range(half + 1, dtype=tf.float32) / tf.cast(sigma, tf.float32)) ** 2)
    weights = tf.unstack(kernel / (2 * tf.reduce_sum(kernel) - kernel[0]))
    levels = tf.cast(tf.pad(image, ((half, half), (half, half), (0, 0)), "REFLECT"), tf.float32)
    levels = tf.reshape(levels, (tf.shape(levels)[0], -1))
    levels = _weighted(_weighted(levels, weights, 0, 1), weights, 1, channels)
    return tf.reshape(tf.saturate_cast(tf.round(levels), tf.uint8), tf.shape(image))


def _end(levels, first: int, step: int, axis: int):
    part = slice(first, first + step or None)
    return levels[:, part] if axis else levels[part]


def _weighted(wide, weights, axis: int, step: int):
    """Sums over pixels up to len(weights) - 1 away, by which `wide` is longer at both ends."""
    tf = tensorflow()
    reach = len(weights) - 1
    size = tf.shape(wide)[axis] - 2 * reach * step

    def moved(by):
        first = (reach + by) * step
        return wide[:, first:first + size] if axis else wide[first:first + size]

    total = weights[0] * moved(0)
    for distance, weight in enumerate(weights[1:], 1):
        total += weight * (moved(-distance) + moved(distance))
    return total
