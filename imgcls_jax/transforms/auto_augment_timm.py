"""AutoAugment as in timm."""

from typing import Literal

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.registry import NotNegative
from imgcls_jax.transforms import TRANSFORMS, _operations, _policies, _timm

# name -> (policy, which operation Posterize is in it)
POLICIES = {"original": ("imagenet", "PosterizeOriginal"),
            "originalr": ("imagenet", "PosterizeIncreasing"),
            "v0": ("v0", "Posterize"), "v0r": ("v0", "PosterizeIncreasing")}


@TRANSFORMS.register()
def auto_augment_timm(*, policy: Literal["original", "originalr", "v0", "v0r"] = "original",
                      std: NotNegative = 0.0, largest: float = 10,
                      interpolation: _timm.Interpolation = "random",
                      fill: int | tuple[int, ...] = _timm.MEAN, translate: float = 0.45):
    """u8[H,W,C] -> u8[H,W,C] through one of 25 pairs of operations (arXiv 1805.09501).

    timm's "original-mstd0.5" is policy="original", std=0.5. "original" is the paper's for ImageNet,
    "v0" that of Google's EfficientNet; with "r" Posterize is stronger at a higher magnitude. The
    other arguments are those of `randaugment_timm`.
    """
    names = operations(policy)

    def transform(example, seed):
        run = _timm.operations(names, interpolation, fill, translate)
        which, rows = draw(seed, policy, std, largest)
        image = _operations.chain(decoding.pixels(example), run, which, rows)
        return {**example, "image": image}

    return transform


def operations(policy: str) -> tuple[str, ...]:
    """Their names in timm."""
    table, posterize = POLICIES[policy]
    return tuple(posterize if name == "Posterize" else name for name in _policies.names(table))


def draw(seed, policy: str, std: float, largest: float):
    """(i32[2] numbers in `operations`, or their count for none; f64[2,3] from `_timm.draw`)."""
    tf = tensorflow()
    uniform = tf.random.stateless_uniform((9,), seed)
    normal = tf.random.stateless_normal((2,), tf.random.experimental.stateless_fold_in(seed, 1))
    which, magnitudes = _policies.draw(uniform[:3], POLICIES[policy][0])
    return which, _timm.draw(tf.reshape(uniform[3:], (2, 3)), normal, magnitudes, std, largest)
