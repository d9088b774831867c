"""3-Augment, the augmentation of DeiT III."""

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.transforms import TRANSFORMS, _color, _operations
from imgcls_jax.transforms import color_jitter as jitter

OPERATIONS = (lambda image, level: _color.grayscale(image),
              lambda image, level: _color.solarize(image, 128),
              lambda image, sigma: _operations.COLOR["blur"](image, sigma))
SIGMAS = (0.1, 2.0)


@TRANSFORMS.register()
def three_augment(*, color_jitter: float = 0.3):
    """u8[H,W,C] -> u8[H,W,C], made gray, solarized at 128 or blurred, equally often; then color
    jitter of brightness, contrast and saturation.

    arXiv 2204.07118, section 3.3, as in facebookresearch/deit/augment.py; the blur is Pillow's,
    with sigma 0.1 to 2. There it comes after a crop ("random_resized_crop", or, as a simple random
    crop, "resize_small" and "pad_crop") and a flip.
    """
    kinds, ranges = jitter.jitters(brightness=color_jitter, contrast=color_jitter,
                                   color=color_jitter)

    def transform(example, seed):
        run = (*OPERATIONS, *jitter.operations(kinds))
        image = _operations.chain(decoding.pixels(example), run, *draw(seed, ranges))
        return {**example, "image": image}

    return transform


def draw(seed, ranges):
    """(i32[1+N]: one of 3, then a permutation of the N jitters; f64[1+N]: sigma, factors)."""
    tf = tensorflow()
    seeds = [tf.random.experimental.stateless_fold_in(seed, number) for number in range(2)]
    uniform = tf.random.stateless_uniform((2,), seeds[0])
    first = _operations.uniform_index(uniform[:1], len(OPERATIONS))
    sigma = SIGMAS[0] + (SIGMAS[1] - SIGMAS[0]) * tf.cast(uniform[1:], tf.float64)
    if not ranges:
        return first, sigma
    order, factors = jitter.draw(seeds[1], ranges, 1.0)
    return tf.concat([first, len(OPERATIONS) + order], 0), tf.concat([sigma, factors], 0)
