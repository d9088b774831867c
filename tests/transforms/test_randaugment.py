"""RandAugment: its operations are Pillow's, drawn equally often, and no other one runs."""

import collections
import functools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from imgcls_jax.errors import ConfigError
from imgcls_jax.transforms import _color, _geometry
from imgcls_jax.transforms.randaugment import randaugment

SIDE = 40
NOISE = np.random.default_rng(0).normal(0, 12, (SIDE, SIDE, 3))
SMOOTH = np.linspace(60, 190, SIDE)[:, None, None] + np.linspace(-30, 30, SIDE)[:, None]
RGB = np.clip(SMOOTH + NOISE, 20, 230).astype(np.uint8)
RGB[RGB == 128] = 127  # so that 128 is the fill and nothing else
GRAY = RGB[..., :1]


def augment(image, seeds, **arguments):
    """One result per seed, in a graph, where the height and width are not known."""
    @tf.autograph.experimental.do_not_convert
    def example(seed):
        height, width = seed * 0 + image.shape[0], seed * 0 + image.shape[1]
        pixels = tf.constant(image)[:height, :width]
        return transform({"image": pixels, "channels": image.shape[-1]}, tf.stack([seed, 7]))

    transform = randaugment(**arguments)
    data = tf.data.Dataset.range(seeds, output_type=tf.int32).map(example)
    assert data.element_spec["image"] == tf.TensorSpec((None, None, image.shape[-1]), tf.uint8)
    return [made["image"] for made in data.as_numpy_iterator()]


def affine(picture, a, b, c, d, e, f):
    """Pillow's, with pixel centers at whole numbers as in TensorFlow."""
    moved = (a, b, c + (1 - a - b) / 2, d, e, f + (1 - d - e) / 2)
    return picture.transform(picture.size, Image.Transform.AFFINE, moved,
                             fillcolor=(128,) * len(picture.getbands()))


def rotate(picture, degrees):
    cos, sin, center = np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), (SIDE - 1) / 2
    return affine(picture, cos, -sin, center * (1 - cos + sin),
                  sin, cos, center * (1 - sin - cos))


def by_pillow(image, m):
    """(operation, sign) -> u8[H,W,C], as the reference maps the magnitude to arguments."""
    picture = Image.fromarray(image.squeeze())
    made = {
        "AutoContrast": ImageOps.autocontrast(picture),
        "Equalize": ImageOps.equalize(picture),
        "Invert": ImageOps.invert(picture),
        "Posterize": ImageOps.posterize(picture, {0: 1, 3: 1, 9.7: 3, 20: 8}[m]),
        "Solarize": ImageOps.solarize(picture, {0: 0, 3: 76, 9.7: 248, 20: 0}[m]),
        "SolarizeAdd": picture.point([min(v + int(11 * m), 255) if v < 128 else v
                                      for v in range(256)] * len(picture.getbands()))}
    for name in ("Color", "Contrast", "Brightness", "Sharpness"):
        made[name] = getattr(ImageEnhance, name)(picture).enhance(0.18 * m + 0.1)
    for sign in (-1, 1):
        made["Rotate", sign] = rotate(picture, sign * 3 * m)
        made["ShearX", sign] = affine(picture, 1, sign * 0.03 * m, 0, 0, 1, 0)
        made["ShearY", sign] = affine(picture, 1, 0, 0, sign * 0.03 * m, 1, 0)
        made["TranslateX", sign] = affine(picture, 1, 0, sign * 10 * m, 0, 1, 0)
        made["TranslateY", sign] = affine(picture, 1, 0, 0, 0, 1, sign * 10 * m)
    return {name: np.asarray(array).reshape(image.shape) for name, array in made.items()}


def which(made, image, references, half):
    """The operation that made this; Cutout may be anywhere."""
    distance = {name: np.abs(made - reference.astype(int)).max()
                for name, reference in references.items()}
    name = min(distance, key=distance.get)
    if distance[name] <= 1:  # Pillow blends in the same f32, but a compiler may fuse it
        return name
    rows, columns = np.nonzero((made == 128).all(-1))
    square = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    expected = image.copy()
    expected[square] = 128
    np.testing.assert_array_equal(made, expected)
    assert all(s.stop - s.start <= 2 * half for s in square)
    return "Cutout"


@pytest.mark.nightly
@pytest.mark.parametrize("magnitude, image", [(0, RGB), (3, GRAY), (9.7, RGB), (20, RGB)],
                         ids=["0", "3, gray", "9.7", "20"])
def test_every_result_is_pillows(magnitude, image):
    references = by_pillow(image, magnitude)
    for made in augment(image, 150, operations=1, magnitude=magnitude):
        which(made, image, references, int(4 * magnitude))


def test_every_operation_is_drawn_equally_often_and_mirrored_half_of_the_time():
    references = by_pillow(RGB, 3)
    drawn = collections.Counter(which(made, RGB, references, 12) for made in augment(
        RGB, 1600, operations=1, magnitude=3))
    operations, signs = collections.Counter(), collections.Counter()
    for name, count in drawn.items():
        operations[name[0] if isinstance(name, tuple) else name] += count
        signs[name[1] if isinstance(name, tuple) else 0] += count
    assert len(operations) == 16
    assert scipy.stats.chisquare(list(operations.values())).pvalue > 0.001
    assert scipy.stats.chisquare([signs[-1], signs[1]]).pvalue > 0.001


@pytest.fixture
def ran(monkeypatch):
    """The names of the operations, as they run."""
    names = []

    def watched(function, image, *arguments):
        note = tf.numpy_function(lambda: names.append(function.__name__) or np.int32(0), [],
                                 tf.int32)
        with tf.control_dependencies([note]):
            return function(tf.identity(image), *arguments)

    for module, functions in [
            (_color, "autocontrast equalize invert posterize solarize solarize_add color contrast "
                     "brightness sharpness"),
            (_geometry, "rotate shear_x shear_y translate_x translate_y cutout")]:
        for name in functions.split():
            monkeypatch.setattr(module, name, functools.partial(watched, getattr(module, name)))
    return names


def test_only_the_drawn_operations_run_and_are_drawn_independently(ran):
    augment(RGB, 500, operations=2, magnitude=3)
    assert len(ran) == 2 * 500
    same = sum(first == second for first, second in zip(ran[::2], ran[1::2], strict=True))
    assert scipy.stats.binomtest(same, 500, 1 / 16).pvalue > 0.001


@pytest.mark.nightly
def test_the_seed_alone_decides():
    first, second = (augment(RGB, 30, magnitude=3) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len({made.tobytes() for made in first}) > 20


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 3, 1)])
def test_the_smallest_images_keep_their_shape(shape):
    example = {"image": tf.reshape(tf.range(np.prod(shape)), shape), "channels": shape[-1]}
    example["image"] = tf.cast(example["image"], tf.uint8)
    transform = randaugment()
    assert {tuple(transform(example, tf.constant([seed, 7]))["image"].shape)
            for seed in range(60)} == {shape}


def test_one_level_or_few_pixels_are_not_stretched():
    flat = tf.fill((9, 9, 3), tf.constant(7, tf.uint8))
    few = tf.constant(GRAY[:10, :10])
    np.testing.assert_array_equal(_color.autocontrast(flat), flat)
    np.testing.assert_array_equal(_color.equalize(flat), flat)
    np.testing.assert_array_equal(_color.equalize(few), few)


@pytest.mark.parametrize("place, square", [((0, 0), np.s_[:2, :2]), ((0.5, 0.25), np.s_[3:7, :4]),
                                           ((0.999, 0.999), np.s_[7:, 7:])])
def test_cutout_is_centered_at_its_place_and_cut_off_at_the_edge(place, square):
    image = np.zeros((10, 10, 3), np.uint8)
    made = _geometry.cutout(tf.constant(image), 2, tf.constant(place, tf.float32))
    image[square] = 128
    np.testing.assert_array_equal(made, image)


@pytest.mark.parametrize("arguments", [dict(operations=0), dict(magnitude=-1)])
def test_numbers_that_mean_nothing_are_refused(arguments):
    with pytest.raises(ConfigError, match="randaugment"):
        randaugment(**arguments)
