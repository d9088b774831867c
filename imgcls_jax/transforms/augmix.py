"""AugMix as in torchvision."""

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Count, Positive
from imgcls_jax.transforms import TRANSFORMS, _mixture, _operations, _torchvision
from imgcls_jax.transforms._geometry import Interpolation

NAMES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Posterize", "Solarize",
         "AutoContrast", "Equalize", "Brightness", "Color", "Contrast", "Sharpness")
PAPER = 9  # how many the paper uses for ImageNet: the last four also are in ImageNet-C
RANGES = dict(shear=0.3, share=1 / 3, degrees=30, factor=0.9, bits=(4, 4))
BINS = 10


@TRANSFORMS.register()
def augmix(*, severity: Count = 3, width: Count = 3, depth: int = -1, alpha: Positive = 1.0,
           all_operations: bool = True, interpolation: Interpolation = "bilinear",
           fill: int | tuple[int, ...] = 0):
    """u8[H,W,C] -> u8[H,W,C]: a mean of the image and of `width` chains of operations.

    torchvision.transforms.AugMix (arXiv 1912.02781, without its loss), except that the operations
    are Pillow's, where torchvision uses those of its tensors. severity: 1 to 10, magnitudes are
    drawn below it. depth: operations of a chain; if not positive, 1 to 3 at random. alpha:
    parameter of the Dirichlet and Beta distributions of the weights.
    """
    if not 1 <= severity <= BINS or width < 1 or alpha <= 0:
        raise ConfigError(f"augmix: severity={severity}, width={width}, alpha={alpha} not valid",
                          where="config.transforms",
                          fix="use severity 1 to 10, width >= 1 and alpha > 0")
    names = NAMES if all_operations else NAMES[:PAPER]

    def transform(example, seed):
        tf = tensorflow()
        image = decoding.pixels(example)
        run = _torchvision.operations(names, RANGES, BINS, interpolation, fill)
        weights, share, which, rows = draw(seed, len(names), severity, width, depth, alpha)
        blended = blend(image, _mixture.mean(image, run, (1 - share) * weights, which, rows), share)
        return {**example, "image": tf.ensure_shape(blended, image.shape)}

    return transform


def blend(image, mean, share):
    """u8[H,W,C]: share * image + mean f32[H,W,C] (of the other shares), truncated as there."""
    tf = tensorflow()
    return tf.saturate_cast(mean + share * tf.cast(image, tf.float32), tf.uint8)


def draw(seed, operations: int, severity: int, width: int, depth: int, alpha: float):
    """(f32[width] weights of the chains; f32[] share of the image; i32[width,D] below `operations`,
    or `operations` for none; f64[width,D,2] number of the magnitude, sign)."""
    tf = tensorflow()
    weights, share = _mixture.draw_weights(seed, width, alpha)
    uniform = tf.random.stateless_uniform((width, max(depth, _mixture.DEPTH), 4),
                                          tf.random.experimental.stateless_fold_in(seed, 1))
    which = _mixture.only(_operations.uniform_index(uniform[..., 0], operations),
                          _mixture.draw_depths(uniform[:, 0, 3], depth), operations)
    numbers = tf.cast(_operations.uniform_index(uniform[..., 1], severity), tf.float64)
    return weights, share, which, tf.stack([numbers, _operations.sign(uniform[..., 2])], -1)
