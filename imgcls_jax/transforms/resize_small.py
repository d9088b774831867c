"""Resize by the short side."""

from imgcls_jax.transforms import TRANSFORMS, _decode
from imgcls_jax.transforms._resize import Interpolation, resize_to


@TRANSFORMS.register()
def resize_small(*, size: int, interpolation: Interpolation = "bilinear", antialias: bool = True):
    """u8[h,w,C] -> u8[H,W,C] of the same aspect ratio with min(H, W) = size.

    The long side is rounded down, as torchvision and timm do.
    """
    def transform(example, seed):
        import tensorflow as tf

        image = _decode.pixels(example)
        height, width = tf.unstack(tf.shape(image)[:2])
        short = tf.minimum(height, width)
        image = resize_to(image, size * height // short, size * width // short, interpolation,
                          antialias)
        return {**example, "image": image}

    transform.size = None
    return transform
