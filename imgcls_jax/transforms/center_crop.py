"""Crops the center."""

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.registry import Count
from imgcls_jax.transforms import TRANSFORMS


@TRANSFORMS.register(random=False)
def center_crop(*, size: Count):
    """u8[h,w,C] -> u8[size,size,C], the same crop as torchvision's.

    A smaller image raises: put a resize before it. timm's crop_pct=0.875 of 224 pixels is a
    "resize_small" to floor(224 / 0.875) = 256, or with crop_mode="squash" a "resize", and this.
    """
    def transform(example, seed):
        tf = tensorflow()
        image = decoding.pixels(example)
        shape = tf.shape(image)[:2]
        tf.debugging.assert_greater_equal(
            shape, size, f"center_crop: the image is smaller than {size} x {size}")
        top, left = tf.unstack(tf.cast(tf.round((shape - size) / 2), tf.int32))
        return {**example, "image": tf.slice(image, (top, left, 0), (size, size, -1))}

    transform.size = (size, size)
    return transform
