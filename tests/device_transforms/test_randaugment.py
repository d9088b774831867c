"""RandAugment on the device is the host transform of that name: the same pixels, drawn alike."""

import functools

import jax
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from PIL import Image, ImageOps

from imgcls_jax.device_transforms import _color
from imgcls_jax.device_transforms.randaugment import policy, randaugment
from imgcls_jax.errors import ConfigError
from imgcls_jax.transforms import randaugment as host

HEIGHT, WIDTH = 36, 43
SMOOTH = np.linspace(60, 190, HEIGHT)[:, None, None] + np.linspace(-30, 30, WIDTH)[:, None]
RGB = np.clip(SMOOTH + np.random.default_rng(0).normal(0, 12, (HEIGHT, WIDTH, 3)), 20, 230).astype(
    np.uint8)
RGB[RGB == 128] = 127  # so that 128 is the fill and nothing else
CUTOUT = 14
FIXED = [k for k in range(32) if k % 16 != CUTOUT]  # what has no place to draw


@functools.cache
def apply(magnitude):
    return jax.jit(policy(magnitude / 10, HEIGHT, WIDTH).apply)


def on_the_host(image, magnitude):
    """The 32 results of the host's operations, of positive sign first; Cutout at (0.3, 0.4)."""
    return [branch(tf.constant(image), tf.constant((sign, 0.3, 0.4), tf.float64)).numpy()
            for sign in (1.0, -1.0) for branch in host._branches(magnitude / 10)]


# None of them shears to a place midway between two pixels, as 15 does: there the host decides by
# Pillow's fixed-point numbers, and the device by f32.
@pytest.mark.daily(1)
@pytest.mark.parametrize("magnitude, image", [
    (9.7, RGB), (3, RGB[..., :1]), (0, RGB), (13, RGB), (20, RGB)],
    ids=["9.7", "3, gray", "0", "13", "20"])
def test_every_operation_makes_the_pixels_of_the_host(magnitude, image):
    made = np.asarray(apply(magnitude)(
        jax.random.key(0), np.broadcast_to(image, (32, *image.shape)), np.arange(32)))
    expected = on_the_host(image, magnitude)
    for k in FIXED:
        np.testing.assert_array_equal(made[k], expected[k], err_msg=str(k))


def test_every_pair_of_darkest_and_brightest_level_is_stretched_as_pillow_does():
    low, high = np.triu_indices(256)
    counts = np.zeros((len(low), 1, 256), np.int32)
    counts[np.arange(len(low)), 0, low] = counts[np.arange(len(low)), 0, high] = 1
    tables = np.asarray(jax.jit(_color.autocontrast)(counts))[:, 0]
    scale = 255.0 / np.maximum(high - low, 1)[:, None]  # as ImageOps.autocontrast writes it
    levels = np.arange(256)
    expected = np.trunc(levels * scale + -low[:, None] * scale).clip(0, 255)
    expected = np.where((high > low)[:, None], expected, levels)
    np.testing.assert_array_equal(tables, expected)
    for i in range(0, len(low), 331):
        ramp = levels[low[i]:high[i] + 1].astype(np.uint8)[None]
        np.testing.assert_array_equal(
            tables[i][ramp], ImageOps.autocontrast(Image.fromarray(ramp)))


@pytest.mark.parametrize("side", [1, 2, 3, 40])
def test_equalize_is_pillows(side):
    images = np.random.default_rng(side).integers(0, 90, (4, side, side, 1), np.uint8)
    made = jax.jit(lambda levels: _color.look_up(
        levels, _color.equalize(_color.counts(levels))))(images)
    for image, ours in zip(images, np.asarray(made), strict=True):
        expected = ImageOps.equalize(Image.fromarray(image[..., 0]))
        np.testing.assert_array_equal(ours[..., 0], expected)


def test_what_a_tpu_computes_by_products_is_the_same():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 20, 19, 3), np.uint8)
    images[0] = 255
    table = rng.integers(0, 256, (3, 3, 256), np.uint8)
    expected = np.stack([[np.bincount(image[..., c].ravel(), minlength=256) for c in range(3)]
                         for image in images])
    for count in (_color._count_by_products, _color._count_one_by_one):
        np.testing.assert_array_equal(jax.jit(count)(images), expected)
    expected = table[np.arange(3)[:, None, None, None], np.arange(3), images]
    for look_up in (_color._look_up_by_products, _color._gather):
        np.testing.assert_array_equal(jax.jit(look_up)(images, table), expected)


@pytest.mark.daily(1)
@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 3, 1)])
def test_the_smallest_images_keep_their_shape(shape):
    images = np.arange(64 * np.prod(shape)).reshape(64, *shape).astype(np.uint8)
    assert jax.jit(randaugment())(jax.random.key(0), images, None)[0].shape == images.shape


@pytest.fixture(scope="module")
def many():
    """Of 3,200 equal images what each was made of with one operation of magnitude 3."""
    images = np.broadcast_to(RGB, (3200, *RGB.shape))
    made, _ = jax.jit(randaugment(operations=1, magnitude=3))(
        jax.random.key(5), images, np.zeros((3200, 1)))
    return np.asarray(made)


@pytest.mark.nightly
def test_every_operation_is_drawn_equally_often_and_mirrored_half_of_the_time(many):
    expected = [array.tobytes() for array in on_the_host(RGB, 3)]
    found = [image.tobytes() for image in many]
    # What has no sign makes one picture, which stands for both rows.
    cells = {expected[k]: 2 - (expected[k % 16] != expected[k % 16 + 16]) for k in FIXED}
    seen = [found.count(picture) for picture in cells]
    share = [100 * weight for weight in cells.values()]
    assert len(cells) == 15 + 5
    rest = 3200 - sum(seen)  # Cutout
    assert scipy.stats.chisquare([*seen, rest], [*share, 200]).pvalue > 0.001


@pytest.mark.nightly
def test_squares_are_gray_of_one_side_about_a_place_drawn_uniformly(many):
    half, squares = 12, []
    for image in many:
        changed = (image != RGB).any(-1)
        rows, columns = np.nonzero(changed)
        if len(rows) and (image[changed] == 128).all() and changed[
                rows.min():rows.max() + 1, columns.min():columns.max() + 1].all():
            squares.append((rows.min(), rows.max() + 1, columns.min(), columns.max() + 1))
    assert 150 < len(squares) < 250  # 200 expected, standard deviation 14
    top, bottom, left, right = np.array(squares).T
    for first, end, size in ((top, bottom, HEIGHT), (left, right, WIDTH)):
        assert (end - first <= 2 * half).all()
        # The center, as long as one of the two edges is inside.
        center = np.where(end < size, end - half, first + half)[(end < size) | (first > 0)]
        assert scipy.stats.kstest(center + 0.5, "uniform", (0, size)).pvalue > 0.001


@pytest.mark.nightly
def test_two_operations_are_drawn_independently():
    images = np.broadcast_to(RGB, (2000, *RGB.shape))
    made, _ = jax.jit(randaugment(operations=2, magnitude=3))(
        jax.random.key(6), images, np.zeros((2000, 1)))
    inverted = np.stack([255 - RGB, 255 - on_the_host(RGB, 3)[6]])  # twice Invert is the image
    color_then_invert, twice = ((np.asarray(made) == picture).all((1, 2, 3)).sum()
                                for picture in (inverted[1], RGB))
    for count in (color_then_invert, twice):  # Color and Invert do not commute exactly
        assert scipy.stats.binomtest(int(count), 2000, 1 / 256).pvalue > 0.001


@pytest.mark.parametrize("arguments", [dict(operations=0), dict(magnitude=-1)])
def test_numbers_that_mean_nothing_are_refused(arguments):
    with pytest.raises(ConfigError, match="randaugment"):
        randaugment(**arguments)
