"""The one decoding rule, in TensorFlow: every path of every command gives the same pixels.

Pixels are those of Pillow's `convert("RGB")`; with one channel, Pillow's integer luma of them.
Transparent pixels (alpha channel, palette with alpha or color key) are composed onto white: Pillow
would drop the transparency and show the colors below. 16 bits are shifted to 8; gray of 32 bits,
signed or of floats must have levels from 0 to 255, which are rounded. The EXIF orientation is
ignored, as torchvision, timm and TFDS do, and so are color profiles. Of an animation the first
frame is taken. The first bytes of a file decide its format. A file whose header declares more than
`pillow.PIXEL_LIMIT` = 100 million pixels (WebP, AVIF, HEIC 50) is refused.

TensorFlow decodes JPEG of 1 or 3 components with `INTEGER_ACCURATE`, which equals Pillow, and PNG
of 8 bits, gray or color, whose pixels directly follow the header, which equals Pillow too; Pillow
decodes all else. Only the transform `decode` may ask for JPEG as TensorFlow reads it by default.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from imgcls_jax.data.decoding import pillow
from imgcls_jax.data.decoding.tensorflow import tensorflow

# The first bytes of a PNG that TensorFlow decodes, and a mask of the bits that must be equal:
# signature and length, IHDR, width, height, depth, color type, methods and checksum, length, IDAT.
PLAIN_PNG = np.frombuffer(b"\x89PNG\r\n\x1a\n" b"\0\0\0\x0dIHDR" + bytes(8) + b"\x08\0" + bytes(11)
                          + b"IDAT", np.uint8)
PNG_BITS = np.frombuffer(b"\xff" * 16 + b"\xff\xff\xe0\0" * 2 + b"\xff\xfd" + bytes(11)
                         + b"\xff" * 4, np.uint8)

Tensor = Any
Box = tuple[Tensor, Tensor, Tensor, Tensor]  # top, left, height, width: i32[]


def pixels(example: dict) -> Tensor:
    """The image of an example as u8[H,W,channels], decoded if it still is bytes."""
    tf = tensorflow()
    if example["image"].dtype == tf.string:
        return decode(example["image"], example["channels"])
    return to_channels(example["image"], example["channels"])


def decode(data: Tensor, channels: int, *, fast: bool = False) -> Tensor:
    """bytes[] -> u8[H,W,channels]. fast: JPEG (CMYK too) as TensorFlow reads it by default."""
    tf = tensorflow()
    jpeg, components = _is_jpeg(data), (1, 3, 4) if fast else (1, 3)
    plain = tf.cond(jpeg, lambda: _is_plain(data, tf.image.extract_jpeg_shape(data), components),
                    lambda: _is_plain_png(data))
    how = "INTEGER_FAST" if fast else "INTEGER_ACCURATE"
    image = tf.cond(plain, lambda: tf.io.decode_jpeg(data, 3, dct_method=how),  # PNG as well
                    lambda: _decode_by_pillow(data))
    return to_channels(image, channels)


def decode_and_crop(data: Tensor, channels: int, choose: Callable[[Tensor, Tensor], Box]) -> Tensor:
    """bytes[] -> u8[h,w,channels]: the box chosen for (height, width) of the image.

    For a JPEG only the rows and columns of the box are decoded, to the same pixels.
    """
    tf = tensorflow()
    # A JPEG without its end mark may be cut off below the box, which only a whole decode notices.
    complete = _is_jpeg(data) & (tf.strings.substr(data, -2, 2) == b"\xff\xd9")
    shape = tf.cond(complete, lambda: tf.image.extract_jpeg_shape(data),
                    lambda: tf.zeros(3, tf.int32))
    plain = _is_plain(data, shape, (1, 3))
    # TensorFlow also visits the nodes of a branch that is not taken, so branches are kept small.
    whole = tf.cond(plain, lambda: tf.zeros((0, 0, 3), tf.uint8), lambda: decode(data, 3))
    full_height, full_width, _ = tf.unstack(tf.where(plain, shape, tf.shape(whole)))
    top, left, height, width = choose(full_height, full_width)

    def crop_while_decoding():
        # Chroma is interpolated over neighbours: the outer columns need one more to be exact.
        first, last = tf.maximum(left - 1, 0), tf.minimum(left + width + 1, full_width)
        wide = tf.image.decode_and_crop_jpeg(data, tf.stack([top, first, height, last - first]),
                                             3, dct_method="INTEGER_ACCURATE")
        return tf.slice(wide, (0, left - first, 0), (height, width, 3))

    image = tf.cond(plain, crop_while_decoding, lambda: crop(whole, top, left, height, width))
    return to_channels(image, channels)


def crop(image: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    return image[top:top + height, left:left + width]


def to_channels(image: Tensor, channels: int) -> Tensor:
    """u8[H,W,C] -> u8[H,W,channels]: gray is repeated, color becomes luma, alpha goes on white."""
    tf = tensorflow()
    given = image.shape[-1]
    if given in (2, 4):
        wide = tf.cast(image, tf.int32)
        color, alpha = wide[..., :-1], wide[..., -1:]
        # 255 is odd: half a level, which could be rounded either way, does not occur.
        image = tf.cast((color * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)
        given -= 1
    if given == channels:
        return image
    if given == 1:
        return tf.repeat(image, channels, axis=-1)
    red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=-1)
    luma = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) // 0x10000
    return tf.cast(luma, tf.uint8)[..., None]


def _is_jpeg(data: Tensor) -> Tensor:
    tf = tensorflow()
    return tf.strings.substr(data, 0, 3) == b"\xff\xd8\xff"


def _is_plain(data: Tensor, shape: Tensor, components: tuple[int, ...]) -> Tensor:
    """bool[]: whether TensorFlow decodes this JPEG, by its height, width, components and scans."""
    tf = tensorflow()
    height, width, given = tf.unstack(shape)
    # In f32, as a product of i32 might overflow; near the limit Pillow decides.
    pixels = tf.cast(height, tf.float32) * tf.cast(width, tf.float32)
    long = pixels * tf.cast(tf.strings.length(data), tf.float32) > 0.999 * pillow.SCANNED
    # Pillow counts scans, and refuses too many; what looks like a scan may be in a film after it.
    few = tf.cond(long, lambda: tf.size(tf.strings.split([data], b"\xff\xda").flat_values)
                  <= pillow.SCANS, lambda: True)
    return few & (pixels < 0.999 * pillow.PIXEL_LIMIT) & functools.reduce(
        operator.or_, [given == count for count in components])


def _is_plain_png(data: Tensor) -> Tensor:
    """bool[]: 8 bits, gray or color, sides below 8,192, and pixels directly after the header.

    So no chunk comes before them that could make pixels transparent.
    """
    tf = tensorflow()
    head = tf.io.decode_raw(tf.strings.substr(data, 0, len(PLAIN_PNG)), tf.uint8,
                            fixed_length=len(PLAIN_PNG))
    return tf.reduce_all(head & PNG_BITS == PLAIN_PNG)


def _decode_by_pillow(data: Tensor) -> Tensor:
    tf = tensorflow()
    image = tf.numpy_function(pillow.decode, [data], tf.uint8)
    return tf.ensure_shape(image, (None, None, 3))
