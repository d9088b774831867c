"""Drawn scenes of 20 classes, each a shape with a texture: no download, and not trivial to learn.

Five shapes in four textures. Color, size, place, rotation, light, background, clutter, occlusion
and noise are random for every example and independent of its class.
"""

import functools
import math

import numpy as np

from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.datasets import DATASETS
from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Count
from imgcls_jax.types import Lookup, Source

SHAPES = ("circle", "triangle", "square", "star", "cross")
TEXTURES = ("striped", "checkered", "dotted", "marbled")
# Both halves have every shape and every texture, but no pair in common.
PAIRS = tuple((shape, texture) for half in (0, 1) for shape in range(5) for texture in range(4)
              if (shape + texture) % 2 == half)
CLASSES = tuple(f"{TEXTURES[texture]} {SHAPES[shape]}" for shape, texture in PAIRS)
SPLITS = ("train", "validation")
TILT, TURNS = 0.4, math.pi  # radians to either side: of what is looked for, and of all else


@DATASETS.register()
def shapes(*, examples: Count = 4000, held_out: Count = 2000, size: Count = 64,
           classes: tuple[int, ...] = tuple(range(20)), imbalance: float = 1.0,
           seed: int = 0) -> Source:
    """u8[size,size,3]: a textured shape among clutter, a function of (seed, split, number, class).

    examples, held_out: sizes of `train` and `validation`; the classes alternate.
    classes: which of the 20, by number and in this order; 0 to 9 and 10 to 19 share shapes and
      textures, but no pair.
    imbalance: the first class has this many times the training examples of the last, and those in
      between fall by equal ratios (arXiv 1901.05555, section 5.1); the first keeps its examples of
      the balanced split, the others a part of theirs. `validation` stays balanced.

    A split is drawn when it is first read, about a millisecond an image, and kept.
    """
    _check(examples, held_out, size, classes, imbalance)
    numbers = {"train": _skewed(examples, len(classes), imbalance),
               "validation": np.arange(held_out)}
    drawn = functools.cache(lambda name: _draw_split(
        (seed, SPLITS.index(name)), numbers[name], classes, size))

    def open_split(name: str) -> Lookup:
        @functools.cache
        def tensors():
            tf = tensorflow()
            with tf.init_scope():  # outside the pipeline's graph, not a constant in it
                return tf.constant(drawn(name)), tf.constant(labels())

        def labels():
            return (numbers[name] % len(classes)).astype(np.int32)

        def read(index):
            tf = tensorflow()
            images, of_class = tensors()
            return {"image": tf.gather(images, index), "label": tf.gather(of_class, index)}

        return Lookup(len(numbers[name]), read,
                      lambda index: f"{name} scene {numbers[name][index]}", labels)

    return Source(name="shapes", classes=tuple(CLASSES[number] for number in classes),
                  sizes={name: len(of_split) for name, of_split in numbers.items()},
                  open=open_split, image_size=(size, size))


def _check(examples, held_out, size, classes, imbalance):
    def refuse(what, key, fix):
        raise ConfigError(what, where=f"config.data.{key}", fix=fix)

    for key, value, least in (("examples", examples, len(classes)), ("size", size, 16),
                              ("held_out", held_out, 1), ("imbalance", imbalance, 1)):
        if value < least:
            refuse(f"{key}={value} is too small", key, f"use {least} or more")
    if not classes or len(set(classes)) < len(classes) or not set(classes) <= set(range(20)):
        refuse(f"classes={classes} are not allowed", "classes", "name each once, by 0 to 19")


def _skewed(examples: int, classes: int, imbalance: float) -> np.ndarray:
    """i64[N]: the numbers from 0 to examples - 1 that stay; class k keeps a share of
    imbalance^(-k / (classes - 1)) of its examples, and at least 1."""
    numbers = np.arange(examples)
    of_class, place = numbers % classes, numbers // classes
    counts = np.bincount(of_class, minlength=classes)
    shares = imbalance ** -(np.arange(classes) / max(classes - 1, 1))
    return numbers[place < np.maximum(np.round(counts * shares), 1)[of_class]]


# ---- drawing: coordinates in units of half the image's side, from -1 to 1 ------------------------


def _draw_split(seeds: tuple[int, int], numbers: np.ndarray, classes, size: int) -> np.ndarray:
    images = np.empty((len(numbers), size, size, 3), np.uint8)
    for place, number in enumerate(numbers):
        kind = classes[number % len(classes)]
        random = np.random.Generator(np.random.Philox(
            np.random.SeedSequence([*seeds, int(number), kind])))
        images[place] = draw(random, *PAIRS[kind], size)
    return images


def draw(random: np.random.Generator, shape: int, texture: int, size: int) -> np.ndarray:
    """u8[size,size,3]: one scene."""
    side = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    x, y = side[None, :], side[:, None]
    back = _waves(random, x, y, random.uniform(0.6, 2.0))
    muted = 0.2 + 0.6 * random.random((2, 3, 1, 1), np.float32)
    image = _blend(_smooth(back, 0.5), *muted)  # channels first, until the end
    for _ in range(random.integers(0, 3)):
        _put(random, image, side, random.integers(len(OUTLINES)), random.integers(len(PATTERNS)),
             random.uniform(0.12, 0.22), random.uniform(-1, 1, 2), TURNS)
    radius = random.uniform(0.55, 0.85)
    _put(random, image, side, shape, texture, radius,
         random.uniform(radius - 0.95, 0.95 - radius, 2), TILT)
    if random.random() < 0.4:
        u, _ = _turned(random, x, y)
        bar = np.abs(u - random.uniform(-0.35, 0.35)) - random.uniform(0.05, 0.12)
        image = _blend(_inside(bar, size), image, random.random((3, 1, 1), np.float32))
    return _photograph(random, image, x, y).transpose(1, 2, 0)


def _put(random, image, side, shape: int, texture: int, radius: float, center, turned: float):
    """Draws one textured shape over f[3,H,W], whose pixels are at `side` in both directions.

    turned: the largest rotation of the shape, in radians; the texture has no direction.
    """
    near = [slice(*np.searchsorted(side, (place - 1.05 * radius, place + 1.05 * radius)))
            for place in center]
    x, y = side[None, near[0]] - np.float32(center[0]), side[near[1], None] - np.float32(center[1])
    u, v = _turned(random, x, y, turned)
    cover = _inside(OUTLINES[shape](u / radius, v / radius) * radius, len(side))
    u, v = _turned(random, x, y)
    period = random.uniform(0.2, 0.3)
    shade = PATTERNS[texture](random, u / period + random.random(), v / period + random.random())
    part = image[:, near[1], near[0]]
    part[:] = _blend(cover, part, _blend(shade, *_colors(random)))


def _photograph(random, image, x, y):
    """Light from one side, a color cast, noise, 256 levels."""
    u, _ = _turned(random, x, y)
    light = random.uniform(0.75, 1.1) + random.uniform(0, 0.3) * u
    image = image * light * random.uniform(0.8, 1.15, (3, 1, 1)).astype(np.float32)
    image += random.standard_normal(image.shape, np.float32) * random.uniform(0.01, 0.06)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _colors(random):
    """A dark and a bright color f[3,1,1], of any hue."""
    dark, bright = random.random((2, 3, 1, 1), np.float32)
    return 0.45 * dark, 1 - 0.45 * bright


def _turned(random, x, y, most: float = TURNS):
    angle = random.uniform(-most, most)
    cosine, sine = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return cosine * x + sine * y, cosine * y - sine * x


def _blend(share, one, other):
    return one + share * (other - one)


def _inside(distance, size: int):
    """1 where a signed distance is below 0, with an edge of one pixel."""
    return np.clip(0.5 - distance * (size / 2), 0, 1)


def _smooth(values, slope: float):
    """About -1 to 1 -> 0 to 1."""
    return np.clip(values * slope + 0.5, 0, 1)


def _waves(random, x, y, period: float):
    """A random field without a direction: six plane waves of equal wavelength."""
    angles = random.uniform(0, 2 * math.pi, (6, 2)).astype(np.float32)
    scale = np.float32(2 * math.pi / period)
    return sum(np.sin(scale * (math.cos(a) * x + math.sin(a) * y) + phase)
               for a, phase in angles) * np.float32(0.5)


def _polygon(corners: int, inner: float, u, v):
    """Signed distance to the sides of a star; inner: radius of the corners that point inwards."""
    half = np.float32(math.pi / corners)
    angle = np.abs(np.mod(np.arctan2(v, u), 2 * half) - half)
    radius = np.sqrt(u * u + v * v)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    # From the inner corner (inner, 0) to the outer one at angle `half`.
    dx, dy = math.cos(half) - inner, math.sin(half)
    return ((x - inner) * dy - y * dx) / math.hypot(dx, dy)


# Of about equal area if the outer radius is 1. A side of a regular polygon is a straight line:
# its middle is the inner corner.
OUTLINES = (
    lambda u, v: np.sqrt(u * u + v * v) - 0.75,
    lambda u, v: _polygon(3, 0.5, u, v),
    lambda u, v: _polygon(4, math.sqrt(0.5), u, v),
    lambda u, v: _polygon(5, 0.5, u, v),
    lambda u, v: np.minimum(np.maximum(np.abs(u) - 0.95, np.abs(v) - 0.3),
                            np.maximum(np.abs(u) - 0.3, np.abs(v) - 0.95)),
)


def _sine(phase):
    return np.sin(np.float32(2 * math.pi) * phase)


# (random, u, v) in periods -> the share of the second color.
PATTERNS = (
    lambda random, u, v: _smooth(_sine(u), 2),
    lambda random, u, v: _smooth(_sine(u / 1.4) * _sine(v / 1.4), 3),
    lambda random, u, v: _smooth(_sine(u) + _sine(v) - 0.8, 2),
    lambda random, u, v: _smooth(_waves(random, u, v, 1.3), 2),
)
