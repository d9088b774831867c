"""PCA lighting: AlexNet's noise along the principal colors of ImageNet."""

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.registry import NotNegative
from imgcls_jax.transforms import TRANSFORMS, _color

# For the colors of ImageNet in [0, 1], from fb.resnet.torch/datasets/imagenet.lua.
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


@TRANSFORMS.register()
def lighting(*, std: NotNegative = 0.1):
    """u8[H,W,3] -> u8[H,W,3], one color added to all pixels, rounded and clipped to 0 to 255.

    AlexNet, section 4.1: the color is the sum of the principal ones, each times its eigenvalue and
    a normal number with standard deviation std. An image with one channel stays.
    """
    def transform(example, seed):
        image = decoding.pixels(example)
        if image.shape[-1] == 3:
            image = _color.add(image, draw(seed, std))
        return {**example, "image": image}

    return transform


def draw(seed, std: float):
    """f32[3]: levels of 255."""
    tf = tensorflow()
    normal = std * tf.random.stateless_normal((3,), seed)
    return 255 * tf.linalg.matvec(tf.constant(EIGENVECTORS), normal * tf.constant(EIGENVALUES))
