"""Random Gaussian blur."""

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Positive, Share
from imgcls_jax.transforms import TRANSFORMS, _blur


@TRANSFORMS.register()
def gaussian_blur(*, p: Share = 0.5, sigma: tuple[Positive, Positive] = (0.1, 2.0),
                  kernel_size: int | None = None):
    """u8[H,W,C] -> u8[H,W,C], blurred with probability p. sigma: in pixels, uniform in its range.

    kernel_size None: Pillow's GaussianBlur, exact, as in DeiT III and DINO. A number:
    torchvision.transforms.GaussianBlur with a kernel of this many pixels; timm uses 23.
    """
    if not 0 < sigma[0] <= sigma[1] or (kernel_size is not None and kernel_size % 2 == 0):
        raise ConfigError(f"gaussian_blur: sigma={sigma}, kernel_size={kernel_size} are not valid",
                          where="config.transforms",
                          fix="use 0 < low <= high, and an odd kernel_size or None")

    def transform(example, seed):
        tf = tensorflow()
        def blurred():
            if kernel_size is None:
                return _blur.by_boxes(image, width, largest=sigma[1])
            return _blur.by_kernel(image, width, kernel_size)

        image = decoding.pixels(example)
        blur, width = draw(seed, p, sigma)
        made = tf.cond(blur, blurred, lambda: image)
        return {**example, "image": tf.ensure_shape(made, image.shape)}

    return transform


def draw(seed, p: float, sigma: tuple[float, float]):
    """(bool[], whether to blur; f32[], by which sigma)."""
    tf = tensorflow()
    uniform = tf.random.stateless_uniform((2,), seed)
    return uniform[0] < p, sigma[0] + (sigma[1] - sigma[0]) * uniform[1]
