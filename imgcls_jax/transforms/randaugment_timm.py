"""RandAugment as in timm."""

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Count, NotNegative, Share
from imgcls_jax.transforms import TRANSFORMS, _operations, _timm

PLAIN = ("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd",
         "Color", "Contrast", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateXRel",
         "TranslateYRel")
INCREASING = tuple({name: f"{name}Increasing" for name in (
    "Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")}.get(name, name)
    for name in PLAIN)


@TRANSFORMS.register()
def randaugment_timm(*, operations: Count = 2, magnitude: NotNegative = 9, std: NotNegative = 0.5,
                     increasing: bool = True, p: Share = 0.5, largest: float = 10,
                     interpolation: _timm.Interpolation = "random",
                     fill: int | tuple[int, ...] = _timm.MEAN, translate: float = 0.45):
    """u8[H,W,C] -> u8[H,W,C] through `operations` of 15, drawn uniformly, each skipped with 1 - p.

    The defaults are timm's "rand-m9-mstd0.5-inc1" (timm/data/auto_augment.py). In such a string n
    is `operations`, m `magnitude`, mstd `std`, mmax `largest`, inc `increasing` (0 unless given), p
    `p`; t, weights of the operations, is not available. std: standard deviation of the magnitude,
    which is drawn for each operation, normal and clipped to 0 to `largest`; above 100 it is uniform
    from 0 to `magnitude`. interpolation: "random" is drawn for each operation; if a timm recipe
    trains with another interpolation, use it here too. fill: level of pixels from outside the
    image; timm's is the mean that images are normalised with. translate: the largest translation,
    as a share of the side.
    """
    if operations < 1 or magnitude < 0 or std < 0:
        raise ConfigError(
            f"randaugment_timm: operations={operations}, magnitude={magnitude}, std={std} "
            "are not valid",
            where="config.transforms", fix="use operations >= 1, magnitude >= 0 and std >= 0")
    names = INCREASING if increasing else PLAIN

    def transform(example, seed):
        run = _timm.operations(names, interpolation, fill, translate)
        which, rows = draw(seed, operations, magnitude, std, p, largest)
        image = _operations.chain(decoding.pixels(example), run, which, rows)
        return {**example, "image": image}

    return transform


def draw(seed, operations: int, magnitude: float, std: float, p: float, largest: float):
    """(i32[operations] below 15, or 15 for none; f64[operations,3] from `_timm.draw`)."""
    tf = tensorflow()
    uniform = tf.random.stateless_uniform((operations, 5), seed)
    normal = tf.random.stateless_normal((operations,), tf.random.experimental.stateless_fold_in(
        seed, 1))
    count = len(PLAIN)
    which = tf.where(uniform[:, 0] < p, _operations.uniform_index(uniform[:, 1], count), count)
    return which, _timm.draw(uniform[:, 2:], normal, magnitude, std, largest)
