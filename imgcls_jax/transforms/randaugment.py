"""RandAugment: a few operations drawn at random, all of one magnitude."""

from imgcls_jax.errors import ConfigError
from imgcls_jax.transforms import TRANSFORMS, _color, _decode, _geometry


@TRANSFORMS.register()
def randaugment(*, operations: int = 2, magnitude: float = 10):
    """u8[H,W,C] -> u8[H,W,C] through `operations` of 16, drawn uniformly (arXiv 1909.13719).

    magnitude: big_vision's scale, 0 to 10 and up to 20 in its recipes. As there, Posterize is
    weaker at a higher one, and Solarize inverts from level 256 * magnitude / 10 mod 256 on, which
    is the whole image at 0, 10 and 20. Contrast is the corrected form (issue 109 there), the pixel
    operations round as Pillow. What comes from outside the image is 128. Color leaves a gray image
    as it is.
    """
    if operations < 1 or magnitude < 0:
        raise ConfigError(f"randaugment with operations={operations}, magnitude={magnitude}",
                          where="config.transforms", fix="use operations >= 1, magnitude >= 0")

    def transform(example, seed):
        import tensorflow as tf

        image = _decode.pixels(example)
        shape = image.shape
        for draw in tf.unstack(tf.random.stateless_uniform((operations, 4), seed)):
            sign = tf.where(draw[1] < 0.5, -1.0, 1.0)
            branches = _branches(image, magnitude / 10, sign, draw[2:])
            image = tf.switch_case(tf.cast(draw[0] * len(branches), tf.int32), branches)
        return {**example, "image": tf.ensure_shape(image, shape)}

    return transform


def _branches(image, level: float, sign, place):
    """The operations on an image, in big_vision's order; only the one that is called runs.

    sign: 1. or -1., of the geometric ones. place: f32[2] in [0, 1), of Cutout.
    """
    factor = 0.1 + 1.8 * level
    return (
        lambda: _color.autocontrast(image),
        lambda: _color.equalize(image),
        lambda: _color.invert(image),
        lambda: _geometry.rotate(image, sign * 30 * level),
        lambda: _color.posterize(image, min(max(int(4 * level), 1), 8)),
        # The reference compares u8 with a number that wraps; published recipes ran like that.
        lambda: _color.solarize(image, int(256 * level) % 256),
        lambda: _color.color(image, factor),
        lambda: _color.contrast(image, factor),
        lambda: _color.brightness(image, factor),
        lambda: _color.sharpness(image, factor),
        lambda: _geometry.shear_x(image, sign * 0.3 * level),
        lambda: _geometry.shear_y(image, sign * 0.3 * level),
        lambda: _geometry.translate_x(image, sign * 100 * level),
        lambda: _geometry.translate_y(image, sign * 100 * level),
        lambda: _geometry.cutout(image, int(40 * level), place),
        lambda: _color.solarize_add(image, int(110 * level)))
