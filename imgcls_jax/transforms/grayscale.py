"""Random grayscale."""

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.registry import Share
from imgcls_jax.transforms import TRANSFORMS, _color


@TRANSFORMS.register()
def grayscale(*, p: Share = 0.1):
    """u8[H,W,C] -> u8[H,W,C], with probability p its luma in every channel."""
    def transform(example, seed):
        tf = tensorflow()
        image = decoding.pixels(example)
        gray = tf.random.stateless_uniform((), seed) < p
        image = tf.ensure_shape(tf.cond(gray, lambda: _color.grayscale(image), lambda: image),
                                image.shape)
        return {**example, "image": image}

    return transform
