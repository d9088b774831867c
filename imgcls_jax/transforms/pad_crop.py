"""Pad, then crop back at a random place: the shift of the CIFAR recipes."""

from typing import Literal

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.registry import Whole
from imgcls_jax.transforms import TRANSFORMS


@TRANSFORMS.register()
def pad_crop(*, padding: Whole, mode: Literal["zero", "reflect"] = "zero"):
    """u8[H,W,C] -> u8[H,W,C], shifted by up to `padding` pixels each way (arXiv 1512.03385, 4.2).

    mode: what the border is filled with.
    """
    tf_mode = {"zero": "CONSTANT", "reflect": "REFLECT"}[mode]

    def transform(example, seed):
        tf = tensorflow()
        image = decoding.pixels(example)
        padded = tf.pad(image, ((padding, padding), (padding, padding), (0, 0)), tf_mode)
        corner = tf.random.stateless_uniform((2,), seed, 0, 2 * padding + 1, tf.int32)
        shape = tf.shape(image)
        shifted = decoding.crop(padded, corner[0], corner[1], shape[0], shape[1])
        return {**example, "image": tf.ensure_shape(shifted, image.shape)}

    return transform
