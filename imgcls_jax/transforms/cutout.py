"""Cutout."""

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Count, Share
from imgcls_jax.transforms import TRANSFORMS, _geometry


@TRANSFORMS.register()
def cutout(*, size: Count, p: Share = 1.0, fill: int | tuple[int, ...] = (124, 116, 104)):
    """u8[H,W,C] -> u8[H,W,C], with probability p a square of side `size` is filled.

    arXiv 1708.04552: its center is anywhere in the image, and it is cut off at the edge; `size` is
    even (16 for CIFAR-10, 8 for CIFAR-100). fill: in the paper the mean of the data; the default is
    ImageNet's.
    """
    if size < 2 or size % 2:
        raise ConfigError(f"cutout: size={size} is not valid", where="config.transforms",
                          fix="use an even size")

    def transform(example, seed):
        tf = tensorflow()
        image = decoding.pixels(example)
        uniform = tf.random.stateless_uniform((3,), seed)
        made = tf.cond(uniform[0] < p,
                       lambda: _geometry.cutout(image, size // 2, uniform[1:], fill), lambda: image)
        return {**example, "image": tf.ensure_shape(made, image.shape)}

    return transform
