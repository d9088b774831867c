"""The operations of the augmentations are Pillow's, for many levels and kinds of images."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from imgcls_jax.errors import ConfigError
from imgcls_jax.transforms import _blur, _color, _geometry, _operations

FILTERS = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR,
           "bicubic": Image.Resampling.BICUBIC}
LEVELS = (-1.0, -0.77, -0.5, -0.3, -0.013, 0.0, 0.1, 0.25, 0.3, 0.618, 0.99, 1.0)


def images() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0).integers
    y, x = np.mgrid[:41, :56]
    photo = np.stack([3 * x + y, 4 * y, 2 * x + 60 * np.sin(y / 5)], -1) % 256
    noise = draw(0, 256, (24, 31, 3))
    return {name: image.astype(np.uint8) for name, image in {
        "photo": np.clip(photo + draw(0, 20, photo.shape), 20, 230), "noise": noise,
        "one channel": draw(0, 256, (37, 20, 1)), "dim": noise // 4 + 77,
        "gray": np.repeat(draw(0, 256, (19, 30, 1)), 3, -1), "one level": np.full((9, 9, 3), 93),
        "two rows": draw(0, 256, (2, 9, 3)), "one column": draw(0, 256, (12, 1, 1)),
        "one pixel": draw(0, 256, (1, 1, 3))}.items()}


IMAGES = images()
every_image = pytest.mark.parametrize("name", IMAGES)


def pair(name):
    """(tensor, Pillow's) of an image."""
    image = IMAGES[name]
    return tf.constant(image), Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def difference(made, expected) -> int:
    assert made.dtype == tf.uint8
    return int(np.abs(made.numpy().astype(int) - np.asarray(expected).reshape(made.shape)).max())


@every_image
def test_operations_of_whole_numbers_and_autocontrast_are_exact(name):
    image, picture = pair(name)
    assert not difference(_color.autocontrast(image), ImageOps.autocontrast(picture))
    assert not difference(_color.equalize(image), ImageOps.equalize(picture))
    assert not difference(_color.invert(image), ImageOps.invert(picture))
    luma = np.asarray(picture.convert("L"))[..., None].repeat(image.shape[-1], -1)
    assert not difference(_color.grayscale(image), luma)
    for bits in range(1, 9):
        assert not difference(_color.posterize(image, bits), ImageOps.posterize(picture, bits))
    for threshold in (0, 1, 100, 127.5, 128, 255, 256):
        assert not difference(_color.solarize(image, threshold),
                              ImageOps.solarize(picture, threshold))
    for addition in (0, 11, 110, 128):
        table = [min(v + addition, 255) if v < 128 else v for v in range(256)]
        assert not difference(_color.solarize_add(image, addition),
                              picture.point(table * image.shape[-1]))


def test_posterizing_to_no_bit_gives_black():
    assert not _color.posterize(pair("noise")[0], 0).numpy().any()


@every_image
@pytest.mark.parametrize("kind", ["color", "contrast", "brightness", "sharpness"])
def test_enhancements_are_pillows(name, kind):
    image, picture = pair(name)
    for factor in (0, 0.1, 0.55, 1, 1.45, 1.9, 3):
        expected = getattr(ImageEnhance, kind.title())(picture).enhance(factor)
        assert difference(getattr(_color, kind)(image, factor), expected) <= 1, factor


@every_image
def test_hue_turns_in_pillows_hsv(name):
    image, picture = pair(name)
    for turn in (-0.5, -0.31, 0, 0.01, 0.1, 0.4, 0.5):
        expected = picture
        if picture.mode == "RGB":
            hue, *others = picture.convert("HSV").split()
            hue = np.asarray(hue) + np.int32(turn * 255).astype(np.uint8)
            expected = Image.merge("HSV", (Image.fromarray(hue), *others)).convert("RGB")
        assert difference(_color.hue(image, turn), expected) <= 1, turn


@pytest.mark.daily(2)
@every_image
def test_blurs_by_boxes_are_exact(name):
    image, picture = pair(name)
    for sigma in (0.1, 0.3, 0.5, 0.9, 1.2, 1.41, 1.42, 1.7, 2.0, 3.3):
        expected = picture.filter(ImageFilter.GaussianBlur(sigma))
        assert not difference(_blur.by_boxes(image, sigma, largest=sigma), expected), sigma
        made = traced_blur(image.shape[-1])(image, tf.constant(sigma, tf.float64))
        assert not difference(made, expected), sigma


def fill_of(channels):
    return (124, 116, 104) if channels == 3 else 77


def operations(interpolation):
    """(image, f64[]) -> image by name: all of this interpolation, or those of color for None."""
    if interpolation is None:
        return _operations.COLOR
    return {name: lambda image, value, run=run: run(image, value, interpolation,
                                                    fill_of(image.shape[-1]))
            for name, run in _operations.GEOMETRIC.items()}


@functools.cache
def traced(interpolation, channels):
    """(image, values f64[N]) -> N images: the operations as tf.data runs them, on images of
    unknown size, each with its value."""
    found = operations(interpolation).values()

    def every(image, values):
        return [run(image, value) for run, value in zip(found, tf.unstack(values), strict=True)]

    return tf.function(every, autograph=False).get_concrete_function(
        tf.TensorSpec((None, None, channels), tf.uint8), tf.TensorSpec(len(found), tf.float64))


@functools.cache
def traced_blur(channels):
    """(image, sigma) -> image, of any sigma up to 4, in a graph, which TensorFlow rewrites."""
    return tf.function(functools.partial(_blur.by_boxes, largest=4.0), autograph=False,
                       input_signature=[tf.TensorSpec((None, None, channels), tf.uint8),
                                        tf.TensorSpec((), tf.float64)])


def affine(picture, matrix, interpolation, fill):
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, FILTERS[interpolation],
                             fillcolor=fill)


@pytest.mark.daily(6)
@pytest.mark.parametrize("interpolation", FILTERS)
@every_image
def test_geometry_is_pillows_and_exact_for_the_nearest(name, interpolation):
    image, picture = pair(name)
    height, width, channels = image.shape
    fill = fill_of(channels)
    for level in LEVELS:
        # Where the border meets a center of a pixel, its last bit decides: not at 30 degrees.
        cases = {"rotate": (level * 31, lambda v: picture.rotate(
                     v, FILTERS[interpolation], fillcolor=fill)),
                 "shear_x": (level, lambda v: affine(picture, (1, v, 0, 0, 1, 0), interpolation,
                                                     fill)),
                 "shear_y": (level, lambda v: affine(picture, (1, 0, 0, v, 1, 0), interpolation,
                                                     fill)),
                 "translate_x": (level * 0.45 * width, lambda v: affine(
                     picture, (1, 0, v, 0, 1, 0), interpolation, fill)),
                 "translate_y": (level * 0.45 * height, lambda v: affine(
                     picture, (1, 0, 0, 0, 1, v), interpolation, fill))}
        most = 0 if interpolation == "nearest" else 1
        results = traced(interpolation, channels)(
            image, tf.constant([cases[kind][0] for kind in operations(interpolation)], tf.float64))
        for kind, made in zip(operations(interpolation), results, strict=True):
            value, expected = cases[kind]
            assert difference(made, expected(value)) <= most, (kind, level)


@pytest.mark.parametrize("degrees", [90, 135, 180, 200.5, 359])
def test_large_angles_are_pillows(degrees):
    image, picture = pair("noise")
    for interpolation, kind in FILTERS.items():
        assert difference(_geometry.rotate(image, degrees, interpolation, 3),
                          picture.rotate(degrees, kind, fillcolor=(3, 3, 3))) <= 1


def test_a_flat_image_stays_flat_at_any_angle():
    image = tf.fill((16, 19, 3), tf.constant(201, tf.uint8))
    for interpolation in FILTERS:
        for degrees in (0, 7, 33.3):
            assert (_geometry.rotate(image, degrees, interpolation, 201).numpy() == 201).all()


def test_the_fill_of_an_image_of_one_channel_is_the_luma():
    gray = Image.new("RGB", (1, 1), (10, 200, 30)).convert("L").getpixel((0, 0))
    made = _geometry.translate_x(pair("one channel")[0], 100, "bilinear", (10, 200, 30))
    assert (made.numpy() == gray).all()
    with pytest.raises(ConfigError, match="fill has 2 values"):
        _geometry.translate_x(pair("one channel")[0], 1, "nearest", (1, 2))


def test_erasing_changes_the_box_alone():
    image = pair("noise")[0]
    for box in ((0, 0, 5, 7), (20, 28, 9, 9), (-3, -2, 5, 5), (4, 4, 0, 0), (0, 0, 24, 31)):
        made = _geometry.erase(image, box, tf.constant([1, 2, 3], tf.uint8))
        expected = image.numpy()
        top, left, height, width = box
        expected[max(top, 0):top + height, max(left, 0):left + width] = (1, 2, 3)
        np.testing.assert_array_equal(made, expected)


@pytest.mark.daily(1)
@pytest.mark.parametrize("channels", [3, 1])
def test_every_operation_keeps_the_shape_of_an_image_whose_size_is_not_known(channels):
    """In a graph, as in tf.data; it gives what it gives eagerly."""
    image, value = tf.constant(IMAGES["noise"][..., :channels]), tf.constant(1.3, tf.float64)
    for interpolation in (None, *FILTERS):
        run, eager = traced(interpolation, channels), operations(interpolation)
        assert all(made.shape.rank == 3 for made in run.structured_outputs)
        for made, operation in zip(run(image, tf.repeat(value, len(eager))), eager.values(),
                                   strict=True):
            np.testing.assert_array_equal(made, operation(image, value))


@pytest.mark.parametrize("eager", [True, False])
def test_a_chain_runs_the_drawn_operations_in_their_order_and_no_other(eager):
    def note(number):
        def operation(image, row):
            ran = tf.numpy_function(lambda row: names.append((number, float(row))) or np.int32(0),
                                    [row], tf.int32)
            with tf.control_dependencies([ran]):
                return image + tf.constant(number, tf.uint8)
        return operation

    names = []
    run = functools.partial(_operations.chain, tf.zeros((4, 5, 3), tf.uint8),
                            tuple(note(number) for number in range(4)))
    run = run if eager else tf.function(run, autograph=False)
    made = run(tf.constant([2, 4, 1, 2]), tf.constant([0.5, 9.0, 0.25, 4.0], tf.float64))
    assert names == [(2, 0.5), (1, 0.25), (2, 4.0)]
    assert (made.numpy() == 5).all()
