"""AugMix as in timm."""

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Count, NotNegative, Positive
from imgcls_jax.transforms import TRANSFORMS, _mixture, _operations, _timm

NAMES = ("AutoContrast", "ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing",
         "SharpnessIncreasing", "Equalize", "Rotate", "PosterizeIncreasing", "SolarizeIncreasing",
         "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")


@TRANSFORMS.register()
def augmix_timm(*, magnitude: NotNegative = 3, std: NotNegative = 1000, width: Count = 3,
                depth: int = -1, alpha: Positive = 1.0, largest: float = 10,
                interpolation: _timm.Interpolation = "random",
                fill: int | tuple[int, ...] = _timm.MEAN, translate: float = 0.3):
    """u8[H,W,C] -> u8[H,W,C]: a mean of the image and of `width` chains of operations.

    timm's "augmix-m5-w4-d2" is magnitude=5, width=4, depth=2 (arXiv 1912.02781, without its loss).
    depth: operations of a chain; if not positive, 1 to 3 at random. alpha: parameter of the
    Dirichlet and Beta distributions of the weights. The other arguments are those of
    `randaugment_timm`; timm's faster form that blends each chain ("b") is not available.
    """
    if width < 1 or alpha <= 0 or magnitude < 0 or std < 0:
        raise ConfigError(f"augmix_timm: magnitude={magnitude}, std={std}, width={width}, "
                          f"alpha={alpha} are not valid", where="config.transforms",
                          fix="use magnitude >= 0, std >= 0, width >= 1 and alpha > 0")

    def transform(example, seed):
        tf = tensorflow()
        image = decoding.pixels(example)
        run = _timm.operations(NAMES, interpolation, fill, translate)
        weights, share, which, rows = draw(seed, magnitude, std, width, depth, alpha, largest)
        blended = blend(image, _mixture.mean(image, run, weights, which, rows), share)
        return {**example, "image": tf.ensure_shape(blended, image.shape)}

    return transform


def blend(image, mean, share):
    """u8[H,W,C]: the image blended with a share of the mean f32[H,W,C], truncated as in timm."""
    tf = tensorflow()
    levels = tf.cast(image, tf.float32)
    return tf.cast(levels + share * (tf.floor(tf.minimum(mean, 255)) - levels), tf.uint8)


def draw(seed, magnitude: float, std: float, width: int, depth: int, alpha: float, largest: float):
    """(f32[width] weights of the chains; f32[] share of their mean; i32[width,D] numbers in NAMES,
    or their count for none; f64[width,D,3] from `_timm.draw`)."""
    tf = tensorflow()
    weights, share = _mixture.draw_weights(seed, width, alpha)
    places = width, max(depth, _mixture.DEPTH)
    seeds = [tf.random.experimental.stateless_fold_in(seed, number) for number in (1, 2)]
    uniform = tf.random.stateless_uniform((*places, 5), seeds[0])
    normal = tf.random.stateless_normal(places, seeds[1])
    which = _mixture.only(_operations.uniform_index(uniform[..., 0], len(NAMES)),
                          _mixture.draw_depths(uniform[:, 0, 4], depth), len(NAMES))
    rows = _timm.draw(tf.reshape(uniform[..., 1:4], (-1, 3)), tf.reshape(normal, [-1]), magnitude,
                      std, largest)
    return weights, share, which, tf.reshape(rows, (*places, 3))
