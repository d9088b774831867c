"""Pixel operations of the automatic augmentations, u8[H,W,C] -> u8[H,W,C], equal to Pillow's."""

from imgcls_jax.transforms import _decode, _geometry


def autocontrast(image):
    """Each channel stretched to 0 to 255; one of a single level stays."""
    import tensorflow as tf

    low, high = (tf.cast(reduce(image, (0, 1)), tf.float64)[:, None]
                 for reduce in (tf.reduce_min, tf.reduce_max))
    scale = 255 / tf.maximum(high - low, 1)
    levels = tf.range(256, dtype=tf.float64)
    table = tf.where(high > low, levels * scale - low * scale, levels)
    return _look_up(image, table)


def equalize(image):
    """Each channel to a flat histogram; one of too few pixels or of a single level stays."""
    import tensorflow as tf

    channels = image.shape[-1]
    of_channel = tf.cast(image, tf.int32) + 256 * tf.range(channels)
    counts = tf.reshape(tf.math.bincount(tf.reshape(of_channel, [-1]), minlength=256 * channels,
                                         maxlength=256 * channels), (channels, 256))
    brightest = tf.cast(tf.reduce_max(image, (0, 1)), tf.int32)
    step = (tf.reduce_sum(counts, 1) - tf.gather(counts, brightest, batch_dims=1))[:, None] // 255
    below = tf.cumsum(counts, 1, exclusive=True)
    table = tf.where(step > 0, (below + step // 2) // tf.maximum(step, 1), tf.range(256))
    return _look_up(image, table)


def invert(image):
    return 255 - image


def posterize(image, bits: int):
    """All but the highest `bits` of 8 become zero."""
    import tensorflow as tf

    return tf.bitwise.bitwise_and(image, tf.constant(256 - (256 >> bits), tf.uint8))


def solarize(image, threshold: int):
    """Levels from `threshold` on are inverted."""
    import tensorflow as tf

    return tf.where(image < threshold, image, 255 - image)


def solarize_add(image, addition: int):
    """Levels below 128 are raised by `addition`, to 255 at most."""
    import tensorflow as tf

    raised = tf.saturate_cast(tf.cast(image, tf.int32) + addition, tf.uint8)
    return tf.where(image < 128, raised, image)


def color(image, factor: float):
    """Away from gray: 0 gives the luma, 1 the image. A gray image stays."""
    return _blend(_decode.to_channels(image, 1), image, factor)


def contrast(image, factor: float):
    """Away from the mean luma: 0 gives the mean, 1 the image."""
    import tensorflow as tf

    luma = tf.cast(_decode.to_channels(image, 1), tf.float64)
    return _blend(tf.floor(tf.reduce_mean(luma) + 0.5), image, factor)


def brightness(image, factor: float):
    """Away from black: 0 gives black, 1 the image."""
    return _blend(0, image, factor)


def sharpness(image, factor: float):
    """Away from the image smoothed over 3 x 3 pixels: 0 gives that, 1 the image.

    The outermost pixels are not smoothed.
    """
    import tensorflow as tf

    shape = tf.shape(image)[:2]
    wide = tf.pad(tf.cast(image, tf.int32), ((1, 1), (1, 1), (0, 0)))
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    square = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    smooth = (square + 4 * wide[1:-1, 1:-1] + 6) // 13  # centre 5, neighbours 1, rounded
    inner = _geometry.inside(shape, (1, 1), shape - 1)
    return _blend(tf.where(inner, smooth, wide[1:-1, 1:-1]), image, factor)


def _blend(degenerate, image, factor: float):
    """degenerate + factor * (image - degenerate), cut to 0 to 255 and truncated as Pillow does."""
    import tensorflow as tf

    degenerate, image = tf.cast(degenerate, tf.float32), tf.cast(image, tf.float32)
    return tf.saturate_cast(degenerate + factor * (image - degenerate), tf.uint8)


def _look_up(image, table):
    """Each level of each channel through table [C,256], truncated and cut to 0 to 255."""
    import tensorflow as tf

    channels = image.shape[-1]
    flat = tf.reshape(tf.saturate_cast(table, tf.uint8), [-1])
    return tf.gather(flat, tf.cast(image, tf.int32) + 256 * tf.range(channels))
