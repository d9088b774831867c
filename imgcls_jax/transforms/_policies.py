"""The policies that AutoAugment found (arXiv 1805.09501), as published.

Each line is a sub-policy of two operations with their probabilities and magnitudes, 0 to 10. The
magnitude of AutoContrast, Equalize and Invert has no effect. "imagenet", "cifar10" and "svhn" are
those of the paper's appendix, which torchvision has (timm has the first); "v0" is that of Google's
EfficientNet (tensorflow/tpu, models/official/efficientnet/autoaugment.py), with the translation
relative to the side as in timm.
"""

from imgcls_jax.data.decoding.tensorflow import tensorflow

_TEXT = {
    "imagenet": """
        Posterize 0.4 8, Rotate 0.6 9
        Solarize 0.6 5, AutoContrast 0.6 5
        Equalize 0.8 8, Equalize 0.6 3
        Posterize 0.6 7, Posterize 0.6 6
        Equalize 0.4 7, Solarize 0.2 4
        Equalize 0.4 4, Rotate 0.8 8
        Solarize 0.6 3, Equalize 0.6 7
        Posterize 0.8 5, Equalize 1 2
        Rotate 0.2 3, Solarize 0.6 8
        Equalize 0.6 8, Posterize 0.4 6
        Rotate 0.8 8, Color 0.4 0
        Rotate 0.4 9, Equalize 0.6 2
        Equalize 0 7, Equalize 0.8 8
        Invert 0.6 4, Equalize 1 8
        Color 0.6 4, Contrast 1 8
        Rotate 0.8 8, Color 1 2
        Color 0.8 8, Solarize 0.8 7
        Sharpness 0.4 7, Invert 0.6 8
        ShearX 0.6 5, Equalize 1 9
        Color 0.4 0, Equalize 0.6 3
        Equalize 0.4 7, Solarize 0.2 4
        Solarize 0.6 5, AutoContrast 0.6 5
        Invert 0.6 4, Equalize 1 8
        Color 0.6 4, Contrast 1 8
        Equalize 0.8 8, Equalize 0.6 3
    """,
    "cifar10": """
        Invert 0.1 0, Contrast 0.2 6
        Rotate 0.7 2, TranslateX 0.3 9
        Sharpness 0.8 1, Sharpness 0.9 3
        ShearY 0.5 8, TranslateY 0.7 9
        AutoContrast 0.5 0, Equalize 0.9 0
        ShearY 0.2 7, Posterize 0.3 7
        Color 0.4 3, Brightness 0.6 7
        Sharpness 0.3 9, Brightness 0.7 9
        Equalize 0.6 0, Equalize 0.5 0
        Contrast 0.6 7, Sharpness 0.6 5
        Color 0.7 7, TranslateX 0.5 8
        Equalize 0.3 0, AutoContrast 0.4 0
        TranslateY 0.4 3, Sharpness 0.2 6
        Brightness 0.9 6, Color 0.2 8
        Solarize 0.5 2, Invert 0 0
        Equalize 0.2 0, AutoContrast 0.6 0
        Equalize 0.2 0, Equalize 0.6 0
        Color 0.9 9, Equalize 0.6 0
        AutoContrast 0.8 0, Solarize 0.2 8
        Brightness 0.1 3, Color 0.7 0
        Solarize 0.4 5, AutoContrast 0.9 0
        TranslateY 0.9 9, TranslateY 0.7 9
        AutoContrast 0.9 0, Solarize 0.8 3
        Equalize 0.8 0, Invert 0.1 0
        TranslateY 0.7 9, AutoContrast 0.9 0
    """,
    "svhn": """
        ShearX 0.9 4, Invert 0.2 0
        ShearY 0.9 8, Invert 0.7 0
        Equalize 0.6 0, Solarize 0.6 6
        Invert 0.9 0, Equalize 0.6 0
        Equalize 0.6 0, Rotate 0.9 3
        ShearX 0.9 4, AutoContrast 0.8 0
        ShearY 0.9 8, Invert 0.4 0
        ShearY 0.9 5, Solarize 0.2 6
        Invert 0.9 0, AutoContrast 0.8 0
        Equalize 0.6 0, Rotate 0.9 3
        ShearX 0.9 4, Solarize 0.3 3
        ShearY 0.8 8, Invert 0.7 0
        Equalize 0.9 0, TranslateY 0.6 6
        Invert 0.9 0, Equalize 0.6 0
        Contrast 0.3 3, Rotate 0.8 4
        Invert 0.8 0, TranslateY 0 2
        ShearY 0.7 6, Solarize 0.4 8
        Invert 0.6 0, Rotate 0.8 4
        ShearY 0.3 7, TranslateX 0.9 3
        ShearX 0.1 6, Invert 0.6 0
        Solarize 0.7 2, TranslateY 0.6 7
        ShearY 0.8 4, Invert 0.8 0
        ShearX 0.7 9, TranslateY 0.8 3
        ShearY 0.8 5, AutoContrast 0.7 0
        ShearX 0.7 2, Invert 0.1 0
    """,
    "v0": """
        Equalize 0.8 1, ShearY 0.8 4
        Color 0.4 9, Equalize 0.6 3
        Color 0.4 1, Rotate 0.6 8
        Solarize 0.8 3, Equalize 0.4 7
        Solarize 0.4 2, Solarize 0.6 2
        Color 0.2 0, Equalize 0.8 8
        Equalize 0.4 8, SolarizeAdd 0.8 3
        ShearX 0.2 9, Rotate 0.6 8
        Color 0.6 1, Equalize 1 2
        Invert 0.4 9, Rotate 0.6 0
        Equalize 1 9, ShearY 0.6 3
        Color 0.4 7, Equalize 0.6 0
        Posterize 0.4 6, AutoContrast 0.4 7
        Solarize 0.6 8, Color 0.6 9
        Solarize 0.2 4, Rotate 0.8 9
        Rotate 1 7, TranslateYRel 0.8 9
        ShearX 0 0, Solarize 0.8 4
        ShearY 0.8 0, Color 0.6 4
        Color 1 0, Rotate 0.6 2
        Equalize 0.8 4, Equalize 0 8
        Equalize 1 4, AutoContrast 0.6 2
        ShearY 0.4 7, SolarizeAdd 0.6 7
        Posterize 0.8 2, Solarize 0.6 10
        Solarize 0.6 8, Equalize 0.6 1
        Color 0.8 6, Rotate 0.4 5
    """,
}
# policy -> ((operation, probability, magnitude), (operation, probability, magnitude)) of each line
POLICIES = {name: tuple(tuple((kind, float(p), float(magnitude)) for kind, p, magnitude in
                              (part.split() for part in line.split(",")))
                        for line in text.strip().splitlines())
            for name, text in _TEXT.items()}


def names(policy: str) -> tuple[str, ...]:
    """The operations of a policy."""
    return tuple(sorted({kind for line in POLICIES[policy] for kind, _, _ in line}))


def draw(uniform, policy: str):
    """(i32[2] numbers in `names`, or their count for none; f64[2] magnitudes) from a random line.

    uniform: f32[3], for the line, and for whether its first and its second operation run.
    """
    tf = tensorflow()
    lines = POLICIES[policy]
    numbers = {name: number for number, name in enumerate(names(policy))}
    line = tf.cast(uniform[0] * len(lines), tf.int32)
    which = tf.gather([[numbers[kind] for kind, _, _ in line] for line in lines], line)
    p = tf.gather([[p for _, p, _ in line] for line in lines], line)
    magnitudes = tf.constant([[m for _, _, m in line] for line in lines], tf.float64)
    return tf.where(uniform[1:] < p, which, len(numbers)), tf.gather(magnitudes, line)
