"""Color jitter: brightness, contrast, saturation and hue, changed at random in a random order."""

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Share
from imgcls_jax.transforms import TRANSFORMS, _operations

Range = float | tuple[float, float]


@TRANSFORMS.register()
def color_jitter(*, brightness: Range = 0.0, contrast: Range = 0.0, saturation: Range = 0.0,
                 hue: Range = 0.0, p: Share = 1.0):
    """u8[H,W,C] -> u8[H,W,C], changed with probability p.

    torchvision.transforms.ColorJitter. brightness, contrast, saturation: factors are uniform from
    max(0, 1 - value) to 1 + value, or in the given range. hue: turns from -value to value, at most
    0.5, a half circle. timm's color_jitter=0.4 is brightness=contrast=saturation=0.4, and its
    color_jitter_prob is p.
    """
    kinds, ranges = jitters(brightness=brightness, contrast=contrast, color=saturation, hue=hue)
    if not kinds:
        raise ConfigError("color_jitter without arguments changes nothing",
                          where="config.transforms",
                          fix="set one of brightness, contrast, saturation and hue")

    def transform(example, seed):
        which, factors = draw(seed, ranges, p)
        image = _operations.chain(decoding.pixels(example), operations(kinds), which, factors)
        return {**example, "image": image}

    return transform


def jitters(**given: Range) -> tuple[tuple[str, ...], tuple[tuple[float, float], ...]]:
    """(operations that change anything, the range of each one's factor)."""
    found = {}
    for kind, value in given.items():
        center = 0.0 if kind == "hue" else 1.0
        low, high = value if isinstance(value, tuple | list) else (center - value, center + value)
        if kind == "hue":
            bad = not -0.5 <= low <= high <= 0.5
        else:
            low = low if isinstance(value, tuple | list) else max(low, 0.0)
            bad = not 0 <= low <= high
        if bad:
            raise ConfigError(f"color_jitter: {'saturation' if kind == 'color' else kind}="
                              f"{value!r} is not valid", where="config.transforms",
                              fix="use 0 <= value, or (low, high); for hue at most 0.5")
        if (low, high) != (center, center):
            found[kind] = (float(low), float(high))
    return tuple(found), tuple(found.values())


def operations(kinds):
    """(image, factor) -> image by number."""
    return tuple(_operations.COLOR[kind] for kind in kinds)


def draw(seed, ranges, p: float):
    """(i32[N] a permutation of the operations, or N for none; f64[N] factors, in that order)."""
    tf = tensorflow()
    count = len(ranges)
    uniform = tf.random.stateless_uniform((2 * count + 1,), seed)
    low, high = (tf.constant(ends, tf.float64) for ends in zip(*ranges, strict=True))
    factors = low + (high - low) * tf.cast(uniform[:count], tf.float64)
    order = tf.argsort(uniform[count:2 * count])
    return tf.where(uniform[-1] < p, order, count), tf.gather(factors, order)
