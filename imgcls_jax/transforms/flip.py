"""Random flip."""

from typing import Literal

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.registry import Share
from imgcls_jax.transforms import TRANSFORMS


@TRANSFORMS.register()
def flip(*, p: Share = 0.5, axis: Literal["horizontal", "vertical"] = "horizontal"):
    """u8[H,W,C] -> u8[H,W,C], with probability p mirrored left to right, or top to bottom."""
    number = {"horizontal": 1, "vertical": 0}[axis]

    def transform(example, seed):
        tf = tensorflow()
        image = decoding.pixels(example)
        mirror = tf.random.stateless_uniform((), seed) < p
        made = tf.cond(mirror, lambda: tf.reverse(image, [number]), lambda: image)
        return {**example, "image": made}

    return transform
