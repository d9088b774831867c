"""The one decoding rule, in TensorFlow: every path of every command gives the same pixels.

Pixels are those of Pillow's `convert("RGB")`; with one channel, Pillow's integer luma of them.
Alpha is dropped, 16 bits are shifted to 8, EXIF orientation is ignored (as torchvision, timm and
TFDS do), an animation is its first frame. JPEG of 1 or 3 components and PNG of 8 bits are decoded
by TensorFlow with `INTEGER_ACCURATE`, which is equal to Pillow; all else by Pillow itself. The
transform `decode` alone may ask for JPEG as TensorFlow itself reads it.
"""

from collections.abc import Callable
from typing import Any

from imgcls_jax.transforms import _pillow

Tensor = Any
Box = tuple[Tensor, Tensor, Tensor, Tensor]  # top, left, height, width: i32[]


def pixels(example: dict) -> Tensor:
    """The image of an example as u8[H,W,channels], decoded if it still is bytes."""
    import tensorflow as tf

    if example["image"].dtype == tf.string:
        return decode(example["image"], example["channels"])
    return to_channels(example["image"], example["channels"])


def decode(data: Tensor, channels: int, *, fast: bool = False) -> Tensor:
    """bytes[] -> u8[H,W,channels]. fast: JPEG, CMYK as well, as TensorFlow reads it by default."""
    import tensorflow as tf

    head = _head(data)
    image = tf.cond(
        _is_plain_jpeg(data, head, (1, 3, 4) if fast else (1, 3)),
        lambda: tf.io.decode_jpeg(data, 3,
                                  dct_method="INTEGER_FAST" if fast else "INTEGER_ACCURATE"),
        lambda: tf.cond(_is_plain_png(head), lambda: tf.io.decode_png(data, 3),
                        lambda: _decode_by_pillow(data)))
    return to_channels(image, channels)


def decode_and_crop(data: Tensor, channels: int, choose: Callable[[Tensor, Tensor], Box]) -> Tensor:
    """bytes[] -> u8[h,w,channels]: the box chosen for (height, width) of the image.

    Of a JPEG only the rows and columns of the box are decoded, to the same pixels.
    """
    import tensorflow as tf

    def crop_while_decoding():
        shape = tf.image.extract_jpeg_shape(data)
        top, left, height, width = choose(shape[0], shape[1])
        # Chroma is interpolated over neighbours: the outer columns need one more to be exact.
        first, last = tf.maximum(left - 1, 0), tf.minimum(left + width + 1, shape[1])
        wide = tf.image.decode_and_crop_jpeg(data, tf.stack([top, first, height, last - first]),
                                             3, dct_method="INTEGER_ACCURATE")
        return wide[:, left - first:left - first + width]

    def decode_then_crop():
        image = decode(data, 3)
        shape = tf.shape(image)
        return crop(image, *choose(shape[0], shape[1]))

    # A JPEG without its end mark may be cut off below the box, which only a whole decode notices.
    complete = _is_plain_jpeg(data, _head(data)) & (tf.strings.substr(data, -2, 2) == b"\xff\xd9")
    return to_channels(tf.cond(complete, crop_while_decoding, decode_then_crop), channels)


def crop(image: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    return image[top:top + height, left:left + width]


def to_channels(image: Tensor, channels: int) -> Tensor:
    """u8[H,W,C] -> u8[H,W,channels]: gray is repeated, color becomes luma, alpha is dropped."""
    import tensorflow as tf

    given = image.shape[-1]
    if given in (2, 4):
        image, given = image[..., :given - 1], given - 1
    if given == channels:
        return image
    if given == 1:
        return tf.repeat(image, channels, axis=-1)
    red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=-1)
    luma = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) // 0x10000
    return tf.cast(luma, tf.uint8)[..., None]


def _head(data: Tensor) -> Tensor:
    """The first 26 bytes, u8[26]; zeros where there are fewer."""
    import tensorflow as tf

    return tf.io.decode_raw(tf.strings.substr(data, 0, 26), tf.uint8, fixed_length=26)


def _is_plain_jpeg(data: Tensor, head: Tensor, components: tuple[int, ...] = (1, 3)) -> Tensor:
    """bool[]: a JPEG of so many components within the pixel limit. A damaged header raises."""
    import tensorflow as tf

    def plain():
        shape = tf.cast(tf.image.extract_jpeg_shape(data), tf.int64)
        known = tf.reduce_any(shape[2] == tf.constant(components, tf.int64))
        return known & (shape[0] * shape[1] <= _pillow.PIXEL_LIMIT)

    is_jpeg = tf.reduce_all(head[:3] == tf.constant([0xFF, 0xD8, 0xFF], tf.uint8))
    return tf.cond(is_jpeg, plain, lambda: False)


def _is_plain_png(head: Tensor) -> Tensor:
    """bool[]: a PNG of 8 bits within the pixel limit, by its header alone."""
    import tensorflow as tf

    is_png = tf.reduce_all(head[:8] == tf.constant(list(b"\x89PNG\r\n\x1a\n"), tf.uint8))
    place_values = tf.constant([1 << 24, 1 << 16, 1 << 8, 1], tf.int64)
    sides = tf.reduce_sum(tf.reshape(tf.cast(head[16:24], tf.int64), (2, 4)) * place_values, 1)
    return is_png & (head[24] == 8) & (sides[0] * sides[1] <= _pillow.PIXEL_LIMIT)


def _decode_by_pillow(data: Tensor) -> Tensor:
    import tensorflow as tf

    image = tf.numpy_function(_pillow.decode, [data], tf.uint8)
    return tf.ensure_shape(image, (None, None, 3))
