"""Decodes the image."""

from typing import Literal

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.transforms import TRANSFORMS


@TRANSFORMS.register(random=False)
def decode(*, dct: Literal["accurate", "fast"] = "accurate"):
    """Encoded bytes -> u8[H,W,C], by the rule of data/decoding; decoded pixels stay unchanged.

    Every other transform that needs pixels decodes by itself; this one decides where it happens,
    and how: dct="fast" is TensorFlow's default for a JPEG, nearly a level darker, which Google's
    weights were evaluated with.
    """
    def transform(example, seed):
        tf = tensorflow()
        image = example["image"]
        if dct == "fast" and image.dtype == tf.string:
            image = decoding.decode(image, example["channels"], fast=True)
        return {**example, "image": decoding.pixels({**example, "image": image})}

    return transform
