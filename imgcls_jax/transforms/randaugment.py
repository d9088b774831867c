"""RandAugment as in big_vision and TensorFlow's EfficientNet."""

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Count, NotNegative
from imgcls_jax.transforms import TRANSFORMS, _color, _geometry, _operations

COUNT = 16


@TRANSFORMS.register()
def randaugment(*, operations: Count = 2, magnitude: NotNegative = 10):
    """u8[H,W,C] -> u8[H,W,C] through `operations` of 16, drawn uniformly (arXiv 1909.13719).

    That of big_vision, also used for EfficientNet (tensorflow/tpu) and EfficientNetV2
    (google/automl): magnitude is 0 to 10, and up to 20 in their recipes. As there, Posterize is
    weaker at a higher magnitude, and Solarize inverts from level 256 * magnitude / 10 mod 256 on,
    which is the whole image at 0, 10 and 20. Contrast is the corrected form (issue 109 of
    big_vision); the pixel operations round as in Pillow. Pixels from outside the image are 128.
    Color leaves a gray image unchanged. For other libraries' versions see `randaugment_timm` and
    `randaugment_torchvision`.
    """
    if operations < 1 or magnitude < 0:
        raise ConfigError(f"randaugment: operations={operations}, magnitude={magnitude} too small",
                          where="config.transforms", fix="use operations >= 1, magnitude >= 0")

    def transform(example, seed):
        image = decoding.pixels(example)
        image = _operations.chain(image, _branches(magnitude / 10), *draw(seed, operations))
        return {**example, "image": image}

    return transform


def draw(seed, operations: int):
    """(i32[operations] below 16; f64[operations,3]: a sign, and the center of Cutout)."""
    tf = tensorflow()
    uniform = tf.random.stateless_uniform((operations, 4), seed)
    rows = [_operations.sign(uniform[:, 1:2]), tf.cast(uniform[:, 2:], tf.float64)]
    return _operations.uniform_index(uniform[:, 0], COUNT), tf.concat(rows, 1)


def _branches(level: float):
    """The operations, (image, row of `draw`) -> image, in big_vision's order."""
    factor = 0.1 + 1.8 * level

    def sheared(shear):
        # There a pixel's center is a whole number: the first row, or column, stays.
        return lambda image, row: shear(image, row[0] * 0.3 * level, "nearest", _geometry.GRAY, 0.5)

    return (
        lambda image, row: _color.autocontrast(image),
        lambda image, row: _color.equalize(image),
        lambda image, row: _color.invert(image),
        lambda image, row: _geometry.rotate(image, row[0] * 30 * level),
        lambda image, row: _color.posterize(image, min(max(int(4 * level), 1), 8)),
        # The reference compares u8 with a number that overflows; published recipes used that.
        lambda image, row: _color.solarize(image, int(256 * level) % 256),
        lambda image, row: _color.color(image, factor),
        lambda image, row: _color.contrast(image, factor),
        lambda image, row: _color.brightness(image, factor),
        lambda image, row: _color.sharpness(image, factor),
        sheared(_geometry.shear_x),
        sheared(_geometry.shear_y),
        lambda image, row: _geometry.translate_x(image, row[0] * 100 * level),
        lambda image, row: _geometry.translate_y(image, row[0] * 100 * level),
        lambda image, row: _geometry.cutout(image, int(40 * level), row[1:]),
        lambda image, row: _color.solarize_add(image, int(110 * level)))
