"""Color operations of the augmentations, u8[H,W,C] -> u8[H,W,C], equal to Pillow's.

They compute in f32 on rows of W * C numbers: a select or a table lookup in u8, or a select on three
axes, takes several times as long. Operations defined in whole numbers, and autocontrast, are exact;
the others are within one level. Factors, thresholds and so on may be numbers or scalar tensors of
any type.
"""

from imgcls_jax.data.decoding.tensorflow import tensorflow


def autocontrast(image):
    """Each channel stretched to 0 to 255; a channel with a single level stays."""
    tf = tensorflow()
    channels = image.shape[-1]
    flat = tf.reshape(image, (-1, channels))
    low, high = (tf.cast(reduce(flat, 0), tf.float64) for reduce in (tf.reduce_min, tf.reduce_max))
    stays = high <= low
    scale = tf.where(stays, tf.ones_like(low), 255 / tf.maximum(high - low, 1))
    offset = tf.where(stays, tf.zeros_like(low), -low * scale)
    # In f64, as in Pillow's table: 254.9999 is truncated to 254.
    scale, offset = (tf.tile(values, [tf.shape(image)[1]]) for values in (scale, offset))
    levels = tf.cast(_rows(image), tf.float64) * scale + offset
    return tf.reshape(tf.saturate_cast(levels, tf.uint8), tf.shape(image))


def equalize(image):
    """Flattens each channel's histogram; one with too few pixels or a single level stays."""
    tf = tensorflow()
    channels = image.shape[-1]
    first = tf.tile(256 * tf.range(channels), [tf.shape(image)[1]])
    of_channel = tf.reshape(tf.cast(_rows(image), tf.int32) + first, [-1])
    counts = tf.reshape(tf.math.bincount(of_channel, minlength=256 * channels,
                                         maxlength=256 * channels), (channels, 256))
    brightest = tf.cast(tf.reduce_max(tf.reshape(image, (-1, channels)), 0), tf.int32)
    step = (tf.reduce_sum(counts, 1) - tf.gather(counts, brightest, batch_dims=1))[:, None] // 255
    below = tf.cumsum(counts, 1, exclusive=True)
    table = tf.where(step > 0, (below + step // 2) // tf.maximum(step, 1), tf.range(256))
    table = tf.reshape(tf.saturate_cast(table, tf.uint8), [-1])
    return tf.reshape(tf.gather(table, of_channel), tf.shape(image))


def invert(image):
    return 255 - image


def posterize(image, bits):
    """Only the highest `bits` of 8 stay, the others become zero; with bits=0 the image is black."""
    tf = tensorflow()
    bits = tf.cast(bits, tf.int32)
    return tf.bitwise.bitwise_and(image, tf.cast(256 - tf.bitwise.right_shift(256, bits), tf.uint8))


def solarize(image, threshold):
    """Levels from `threshold` on are inverted."""
    tf = tensorflow()
    levels = tf.cast(_rows(image), tf.float32)
    made = tf.where(levels < tf.cast(threshold, tf.float32), levels, 255 - levels)
    return tf.reshape(tf.cast(made, tf.uint8), tf.shape(image))


def solarize_add(image, addition):
    """Levels below 128 are raised by `addition`, to 255 at most."""
    tf = tensorflow()
    levels = tf.cast(_rows(image), tf.float32)
    raised = tf.minimum(levels + tf.cast(addition, tf.float32), 255)
    made = tf.where(levels < 128, raised, levels)
    return tf.reshape(tf.cast(made, tf.uint8), tf.shape(image))


def grayscale(image):
    """The luma, in every channel."""
    tf = tensorflow()
    return tf.cast(_luma(image), tf.uint8)


def color(image, factor):
    """Away from gray: 0 gives the luma, 1 the image. A gray image stays."""
    if image.shape[-1] == 1:
        return image
    return _blend(_luma(image), image, factor)


def contrast(image, factor):
    """Away from the mean luma: 0 gives the mean, 1 the image."""
    tf = tensorflow()
    luma = _luma(image)
    # The sum of a row is exact in f32, the sum of an image is not.
    total = tf.reduce_sum(tf.cast(tf.reduce_sum(_rows(luma), 1), tf.float64))
    mean = total / tf.cast(tf.size(image), tf.float64)
    return _blend(tf.floor(mean + 0.5), image, factor)


def brightness(image, factor):
    """Away from black: 0 gives black, 1 the image."""
    return _blend(0, image, factor)


def sharpness(image, factor):
    """Away from the image smoothed over 3 x 3 pixels: 0 gives that, 1 the image.

    The outermost pixels are not smoothed.
    """
    tf = tensorflow()
    height, width, channels = tf.shape(image)[0], tf.shape(image)[1], image.shape[-1]
    levels = tf.cast(_rows(image), tf.float32)

    def inner_blended():
        inner = levels[1:-1, channels:-channels]
        rows = levels[:-2] + levels[1:-1] + levels[2:]
        square = rows[:, :-2 * channels] + rows[:, channels:-channels] + rows[:, 2 * channels:]
        smooth = tf.floor((square + 4 * inner + 6.5) / 13)  # centre 5, neighbours 1, rounded
        blended = tf.cast(_mix(smooth, inner, factor), tf.uint8)
        blended = tf.concat([_rows(image)[1:-1, :channels], blended,
                             _rows(image)[1:-1, -channels:]], 1)
        return tf.concat([_rows(image)[:1], blended, _rows(image)[-1:]], 0)

    made = tf.cond((height > 2) & (width > 2), inner_blended, lambda: _rows(image))
    return tf.reshape(made, tf.shape(image))


def hue(image, turn):
    """The hue shifted by int(255 * turn) of 256 steps, turn in -0.5 to 0.5; gray stays.

    Through Pillow's HSV of 8 bits, which changes most pixels a little even for a turn of 0.
    """
    tf = tensorflow()
    if image.shape[-1] == 1:
        return image
    image = tf.cast(image, tf.float32)
    red, green, blue = (image[..., number] for number in range(3))
    value = tf.maximum(tf.maximum(red, green), blue)
    span = value - tf.minimum(tf.minimum(red, green), blue)
    gray = span == 0
    from_red, from_green, from_blue = (tf.where(gray, 0.0, (value - part) / span)
                                       for part in (red, green, blue))

    def rounded(number, one, other):  # f64 to f32, as in C: it decides where a step of hue ends
        return tf.cast(number + tf.cast(one, tf.float64) - tf.cast(other, tf.float64), tf.float32)

    angle = tf.where(red == value, from_blue - from_green,
                     tf.where(green == value, rounded(2, from_red, from_blue),
                              rounded(4, from_green, from_red)))
    angle = tf.cast(angle, tf.float64) / 6 + 1
    angle = tf.cast(angle - tf.floor(angle), tf.float32)
    steps = tf.floor(tf.cast(angle, tf.float64) * 255)
    steps = tf.where(gray, tf.zeros_like(steps), steps)
    saturation = tf.where(value > 0, span / value, 0.0)
    saturation = tf.floor(tf.cast(saturation, tf.float64) * 255)

    # Truncated towards zero and then modulo 256, as numpy casts it.
    turned = tf.cast(tf.cast(turn, tf.float64) * 255, tf.int32)
    steps = tf.math.floormod(steps + tf.cast(turned, tf.float64), 256)
    place = tf.cast(steps * 6 / 255, tf.float32)
    share = value * tf.cast(saturation / 255, tf.float32)

    def channel(number):
        at = place + number
        at = tf.where(at >= 6, at - 6, at)
        return tf.round(value - share * tf.clip_by_value(tf.minimum(at, 4 - at), 0, 1))

    return tf.cast(tf.stack([channel(number) for number in (5, 3, 1)], -1), tf.uint8)


def add(image, levels):
    """levels: f32[C], added to every pixel, rounded and clipped to 0 to 255."""
    tf = tensorflow()
    added = tf.cast(_rows(image), tf.float32) + tf.tile(levels, [tf.shape(image)[1]])
    return tf.reshape(tf.saturate_cast(tf.round(added), tf.uint8), tf.shape(image))


def _rows(image):
    """[H,W,C] -> [H,W*C]."""
    tf = tensorflow()
    return tf.reshape(image, (tf.shape(image)[0], -1))


def _luma(image):
    """u8[H,W,C] -> f32[H,W,C], whole numbers, computed as in `data.decoding.to_channels`.

    A matrix product whose sums stay below 2^24, so that f32 is exact.
    """
    tf = tensorflow()
    levels = tf.cast(image, tf.float32)
    if image.shape[-1] == 1:
        return levels
    weights = tf.constant([[19595.0] * 3, [38470.0] * 3, [7471.0] * 3])
    sums = tf.matmul(tf.reshape(levels, (-1, 3)), weights)
    return tf.reshape(tf.floor((sums + 0x8000) / 0x10000), tf.shape(image))


def _blend(degenerate, image, factor):
    """degenerate + factor * (image - degenerate), clipped to 0 to 255, truncated as in Pillow."""
    tf = tensorflow()
    return tf.cast(_mix(tf.cast(degenerate, tf.float32), tf.cast(image, tf.float32), factor),
                   tf.uint8)


def _mix(degenerate, levels, factor):
    tf = tensorflow()
    mixed = degenerate + tf.cast(factor, tf.float32) * (levels - degenerate)
    return tf.clip_by_value(mixed, 0, 255)
