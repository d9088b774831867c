"""Random rotation."""

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.transforms import TRANSFORMS, _geometry
from imgcls_jax.transforms._geometry import Interpolation


@TRANSFORMS.register()
def rotation(*, degrees: float | tuple[float, float], interpolation: Interpolation = "nearest",
             fill: int | tuple[int, ...] = 0):
    """u8[H,W,C] -> u8[H,W,C], rotated around its center, counterclockwise if positive.

    torchvision.transforms.RandomRotation without expand: the angle is uniform from -degrees to
    degrees, or in the given range. fill: level of pixels from outside the image.
    """
    ends = degrees if isinstance(degrees, tuple | list) else (-degrees, degrees)

    def transform(example, seed):
        tf = tensorflow()
        image = decoding.pixels(example)
        made = _geometry.rotate(image, draw(seed, *ends), interpolation, fill)
        return {**example, "image": tf.ensure_shape(made, image.shape)}

    return transform


def draw(seed, low: float, high: float):
    """f64[]: degrees."""
    tf = tensorflow()
    return low + (high - low) * tf.random.stateless_uniform((), seed, dtype=tf.float64)
