"""Resizes the short side to a given size."""

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.registry import Count
from imgcls_jax.transforms import TRANSFORMS
from imgcls_jax.transforms._resize import Interpolation, Library, resizer


@TRANSFORMS.register(random=False)
def resize_small(*, size: Count, interpolation: Interpolation = "bilinear",
                 antialias: bool | None = None, library: Library = "tensorflow"):
    """u8[h,w,C] -> u8[H,W,C] with the same aspect ratio and min(H, W) = size.

    The long side is rounded down, as torchvision and timm do. Before a "center_crop" of s pixels,
    timm's crop_pct is size=floor(s / crop_pct).
    """
    resized = resizer(interpolation, antialias, library)

    def transform(example, seed):
        tf = tensorflow()
        image = decoding.pixels(example)
        height, width = tf.unstack(tf.shape(image)[:2])
        short = tf.minimum(height, width)
        image = resized(image, size * height // short, size * width // short)
        return {**example, "image": image}

    transform.size = None
    return transform
