"""AutoAugment as in torchvision."""

from typing import Literal

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.transforms import TRANSFORMS, _operations, _policies, _torchvision
from imgcls_jax.transforms._geometry import Interpolation
from imgcls_jax.transforms.randaugment_torchvision import RANGES

BINS = 10


@TRANSFORMS.register()
def auto_augment(*, policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet",
                 interpolation: Interpolation = "nearest", fill: int | tuple[int, ...] = 0):
    """u8[H,W,C] -> u8[H,W,C] through one of 25 pairs of operations (arXiv 1805.09501).

    torchvision.transforms.AutoAugment; the pairs are in `_policies.py`. fill: level of pixels from
    outside the image.
    """
    names = _policies.names(policy)

    def transform(example, seed):
        run = _torchvision.operations(names, RANGES, BINS, interpolation, fill)
        image = _operations.chain(decoding.pixels(example), run, *draw(seed, policy))
        return {**example, "image": image}

    return transform


def draw(seed, policy: str):
    """(i32[2] numbers in the policy's names, or their count for none; f64[2,2] magnitude, sign)."""
    tf = tensorflow()
    uniform = tf.random.stateless_uniform((5,), seed)
    which, magnitudes = _policies.draw(uniform[:3], policy)
    return which, tf.stack([magnitudes, _operations.sign(uniform[3:])], 1)
