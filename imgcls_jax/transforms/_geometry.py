"""Geometric operations of the automatic augmentations, u8[H,W,C] -> u8[H,W,C], equal to Pillow's.

Coordinates are Pillow's: pixel number x is centered at x + 0.5. "nearest" is exact, in Pillow's
fixed-point numbers of 1/65536 (libImaging/Geometry.c); "bilinear" and "bicubic" (with a = -1) are
truncated as there, and are within one level. fill: pixels from outside the image, a level or one
per channel; three levels become their luma if the image has one channel.
"""

import math
from typing import Literal

from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import ConfigError

GRAY = 128
Interpolation = Literal["nearest", "bilinear", "bicubic"]
Fill = int | tuple[int, ...]


def rotate(image, degrees, interpolation: Interpolation = "nearest", fill: Fill = GRAY):
    """Counterclockwise, about the center."""
    tf = tensorflow()
    y, x = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float64) / 2)
    angle = _f64(degrees) * (math.pi / 180)
    cos, sin = (tf.round(value * 1e15) / 1e15 for value in (tf.cos(angle), tf.sin(angle)))
    return _affine(image, ((cos, -sin, -cos * x + sin * y + x), (sin, cos, -sin * x - cos * y + y)),
                   interpolation, fill)


def shear_x(image, level, interpolation: Interpolation = "nearest", fill: Fill = GRAY,
            origin: float = 0.0):
    """What is at height y moves left by level * (y - origin)."""
    return _slide(image, 1, lambda y: _f64(level) * (y - origin), interpolation, fill)


def shear_y(image, level, interpolation: Interpolation = "nearest", fill: Fill = GRAY,
            origin: float = 0.0):
    """What is at x moves up by level * (x - origin)."""
    return _slide(image, 0, lambda x: _f64(level) * (x - origin), interpolation, fill)


def translate_x(image, pixels, interpolation: Interpolation = "nearest", fill: Fill = GRAY):
    """To the left."""
    return _slide(image, 1, lambda y: _f64(pixels) + 0 * y, interpolation, fill)


def translate_y(image, pixels, interpolation: Interpolation = "nearest", fill: Fill = GRAY):
    """Upwards."""
    return _slide(image, 0, lambda x: _f64(pixels) + 0 * x, interpolation, fill)


def erase(image, box, values):
    """The box (top, left, height, width), cut off at the edge of the image, becomes `values`.

    values: u8, broadcast to [H,W,C].
    """
    tf = tensorflow()
    top, left, height, width = box
    shape = tf.shape(image)
    rows, columns = tf.range(shape[0])[:, None], tf.range(shape[1])
    # A product of casts, because a select in u8 takes ten times as long as all of these.
    inner = ((rows >= top) & (rows < top + height)) & ((columns >= left) & (columns < left + width))
    mask = tf.cast(tf.repeat(inner, shape[2], axis=1), tf.uint8) * tf.constant(255, tf.uint8)
    mask = tf.reshape(mask, shape)
    return tf.bitwise.bitwise_xor(image, tf.bitwise.bitwise_and(
        tf.bitwise.bitwise_xor(image, tf.broadcast_to(values, shape)), mask))


def cutout(image, half: int, place, fill: Fill = GRAY):
    """A square of side 2 * half (arXiv 1708.04552), cut off at the edge of the image.

    place: f32[2] in [0, 1), of its center.
    """
    tf = tensorflow()
    place = tf.cast(place, tf.float32) * tf.cast(tf.shape(image)[:2], tf.float32)
    top, left = tf.unstack(tf.cast(place, tf.int32) - half)
    return erase(image, (top, left, 2 * half, 2 * half), fill_pixel(fill, image.shape[-1]))


def fill_pixel(fill: Fill, channels: int):
    """u8[channels]."""
    tf = tensorflow()
    values = (fill,) * channels if isinstance(fill, int) else tuple(fill)
    if channels == 1 and len(values) == 3:
        values = ((values[0] * 19595 + values[1] * 38470 + values[2] * 7471 + 0x8000) >> 16,)
    if len(values) != channels:
        raise ConfigError(f"fill has {len(values)} values, but images have {channels} channels",
                          where=f"fill={fill!r}", fix="give one level, or one per channel")
    return tf.constant(values, tf.uint8)


def _affine(image, matrix, interpolation: str, fill: Fill):
    """What is at (x, y) of the result is at matrix @ (x, y, 1) of the image. matrix: f64[]s."""
    tf = tensorflow()
    if interpolation == "nearest":
        return _nearest(image, matrix, fill)
    height, width, channels = tf.shape(image)[0], tf.shape(image)[1], image.shape[-1]
    x, y = _centers(width), _centers(height)
    # In f64: at Pillow's border the last bit of an f32 would decide whether a place is inside.
    places = [a * x + (b * y + c)[:, None] for a, b, c in matrix]
    inside = ((places[0] >= 0) & (places[0] < tf.cast(width, tf.float64))
              & (places[1] >= 0) & (places[1] < tf.cast(height, tf.float64)))
    lefts = [tf.floor(place - 0.5) for place in places]
    # Repeated here, since a product that broadcasts over channels costs as much as four others.
    ways = [tf.repeat(tf.cast(place - 0.5 - left, tf.float32)[..., None], channels, -1)
            for place, left in zip(places, lefts, strict=True)]
    column, row = (tf.cast(left, tf.int32) for left in lefts)
    # A place outside takes the fill, which is stored after the pixels, for every tap.
    pixels = tf.concat([tf.reshape(image, (-1, channels)), fill_pixel(fill, channels)[None]], 0)
    taps, first = _taps(interpolation)
    columns = [tf.where(inside, tf.clip_by_value(column + first + k, 0, width - 1), 0)
               for k in range(taps)]
    blend = _blend(interpolation)

    def across(k):
        start = tf.where(inside, width * tf.clip_by_value(row + first + k, 0, height - 1),
                         height * width)
        return blend([tf.cast(tf.gather(pixels, start + column), tf.float32)
                      for column in columns], ways[0])

    return tf.cast(_within_levels(blend([across(k) for k in range(taps)], ways[1]), interpolation),
                   tf.uint8)


def _nearest(image, matrix, fill: Fill):
    tf = tensorflow()
    height, width, channels = tf.shape(image)[0], tf.shape(image)[1], image.shape[-1]

    def fixed(value):
        return tf.cast(tf.floor(value * 65536 + 0.5), tf.int32)

    def places(a, b, c, size):
        start = fixed(c + a * 0.5 + b * 0.5) + fixed(b) * tf.range(height)
        place = tf.bitwise.right_shift(fixed(a) * tf.range(width) + start[:, None], 16)
        return tf.clip_by_value(place, -1, size)

    # One pixel of fill after each row, which also precedes the next row, and two rows of fill.
    pixel = fill_pixel(fill, channels)
    row = tf.broadcast_to(pixel, (1, width + 1, channels))
    wide = tf.concat([image, tf.broadcast_to(pixel, (height, 1, channels))], 1)
    pixels = tf.reshape(tf.concat([row, wide, row], 0), (-1, channels))
    columns, rows = places(*matrix[0], width), places(*matrix[1], height)
    return tf.gather(pixels, (rows + 1) * (width + 1) + columns)


def _slide(image, axis: int, shift, interpolation: str, fill: Fill):
    """Moves the pixel at x + shift(y) to x; along axis 0, the one at y + shift(x) to y.

    shift: f64[N] centers of the other axis -> f64[N].
    """
    tf = tensorflow()
    height, width, channels = tf.shape(image)[0], tf.shape(image)[1], image.shape[-1]
    size, other = (width, height) if axis else (height, width)
    if interpolation == "nearest":
        zero, one = (tf.constant(value, tf.float64) for value in (0, 1))
        slope, offset = shift(one) - shift(zero), shift(zero)
        matrix = (((one, slope, offset), (zero, one, zero)) if axis
                  else ((one, zero, zero), (slope, one, offset)))
        return _nearest(image, matrix, fill)
    shifts = shift(_centers(other))
    left = tf.floor(shifts)
    way = tf.cast(shifts - left, tf.float32)
    taps, first = _taps(interpolation)
    number = tf.range(size + taps - 1) + first
    inside = _centers(size)
    if axis:
        places = tf.cast(left, tf.int32)[:, None] + number
        index = tf.clip_by_value(places, 0, width - 1) + width * tf.range(height)[:, None]
        way = way[:, None]
        inside = tf.repeat(inside, channels) + shifts[:, None]
    else:
        places = tf.cast(left, tf.int32) + number[:, None]
        index = tf.clip_by_value(places, 0, height - 1) * width + tf.range(width)
        way, shifts = tf.repeat(way, channels), tf.repeat(shifts, channels)
        inside = inside[:, None] + shifts
    window = tf.gather(tf.reshape(image, (-1, channels)), index)
    window = tf.cast(tf.reshape(window, (tf.shape(index)[0], -1)), tf.float32)
    parts = [window[:, channels * k:channels * (k + width)] if axis else window[k:k + height]
             for k in range(taps)]
    made = _within_levels(_blend(interpolation)(parts, way), interpolation)
    inside = (inside >= 0) & (inside < tf.cast(size, tf.float64))
    around = tf.tile(tf.cast(fill_pixel(fill, channels), tf.float32), [width])
    made = tf.where(inside, made, tf.broadcast_to(around, tf.shape(made)))
    return tf.reshape(tf.cast(made, tf.uint8), tf.shape(image))


def _f64(number):
    """As f64: a tensor, or a Python number, which tf.cast would round to f32 first."""
    tf = tensorflow()
    return tf.cast(number if tf.is_tensor(number) else tf.constant(number, tf.float64), tf.float64)


def _centers(count):
    tf = tensorflow()
    return tf.range(tf.cast(count, tf.float64), dtype=tf.float64) + 0.5


def _taps(interpolation: str) -> tuple[int, int]:
    """(how many pixels are blended, the first of them counted from the pixel to the left)."""
    return {"bilinear": (2, 0), "bicubic": (4, -1)}[interpolation]


def _blend(interpolation: str):
    return {"bilinear": _linear, "bicubic": _cubic}[interpolation]


def _linear(taps, way):
    return taps[0] + (taps[1] - taps[0]) * way


def _cubic(taps, way):
    near, far = taps[0] - taps[1], taps[2] - taps[3]
    return taps[1] + way * ((taps[2] - taps[0]) + way * ((2 * near + far) - way * (near + far)))


def _within_levels(values, interpolation: str):
    tf = tensorflow()
    return tf.clip_by_value(values, 0, 255) if interpolation == "bicubic" else values
