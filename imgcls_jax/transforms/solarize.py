"""Random solarization."""

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.registry import Share
from imgcls_jax.transforms import TRANSFORMS, _color


@TRANSFORMS.register()
def solarize(*, p: Share = 0.2, threshold: int = 128):
    """u8[H,W,C] -> u8[H,W,C], with probability p levels from `threshold` on are inverted."""
    def transform(example, seed):
        tf = tensorflow()
        image = decoding.pixels(example)
        invert = tf.random.stateless_uniform((), seed) < p
        made = tf.cond(invert, lambda: _color.solarize(image, threshold), lambda: image)
        return {**example, "image": tf.ensure_shape(made, image.shape)}

    return transform
