"""Sizes, places and randomness of the host transforms, against Pillow, numpy and torchvision."""

import io
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from imgcls_jax.errors import ConfigError
from imgcls_jax.transforms import TRANSFORMS
from imgcls_jax.transforms.random_resized_crop import sample_box

IMAGE = np.random.default_rng(0).integers(0, 256, (37, 52, 3), np.uint8)


def apply(name, image=IMAGE, seed=(0, 0), **arguments):
    example = {"image": tf.constant(image), "label": 0, "channels": 3}
    transform = TRANSFORMS.bind(dict(name=name, **arguments), name)()
    return transform(example, tf.constant(seed, tf.int32))["image"].numpy()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos3"])
@pytest.mark.parametrize("size", [(20, 31), (61, 90)])
def test_resize_is_pillows_within_its_rounding(interpolation, size):
    method = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos3": Image.LANCZOS}
    image = IMAGE // 2 + 64  # away from 0 and 255, where Pillow clips between its two passes
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], method[interpolation]))
    made = apply("resize", image, size=size, interpolation=interpolation)
    assert np.abs(made.astype(int) - expected).max() <= 1  # it rounds between them, too


def test_resize_without_antialias_takes_the_four_nearest_pixels():
    made = apply("resize", size=(1, 1), antialias=False)
    expected = IMAGE[18, 25:27].astype(float).mean(0)  # the center is row 18, column 25.5
    np.testing.assert_allclose(made[0, 0], expected, atol=0.5)


@pytest.mark.parametrize("shape, expected", [((37, 52), (20, 28)), ((52, 37), (28, 20)),
                                             ((40, 40), (20, 20)), ((5, 52), (20, 208))])
def test_resize_small_keeps_the_ratio_and_rounds_the_long_side_down(shape, expected):
    image = np.zeros((*shape, 3), np.uint8)
    assert apply("resize_small", image, size=20).shape == (*expected, 3)


@pytest.mark.parametrize("shape", [(8, 8), (9, 11), (11, 13), (12, 9), (13, 15)])
def test_center_crop_is_where_torchvision_takes_it(shape):
    image = IMAGE[:shape[0], :shape[1]]
    top, left = (round((side - 8) / 2) for side in shape)
    np.testing.assert_array_equal(apply("center_crop", image, size=8),
                                  image[top:top + 8, left:left + 8])


def test_center_crop_refuses_a_smaller_image():
    with pytest.raises(tf.errors.InvalidArgumentError, match="smaller than 40 x 40"):
        apply("center_crop", size=40)


def test_flip_mirrors_with_its_probability():
    seeds = [apply("flip", seed=(0, i), p=0.25) for i in range(200)]
    mirrored = [np.array_equal(image, IMAGE[:, ::-1]) for image in seeds]
    assert all(np.array_equal(image, IMAGE) for image, m in zip(seeds, mirrored, strict=True)
               if not m)
    assert 30 <= sum(mirrored) <= 70  # 50 expected, standard deviation 6


@pytest.mark.parametrize("mode, numpy_mode", [("zero", "constant"), ("reflect", "reflect")])
def test_pad_crop_is_a_window_of_the_padded_image(mode, numpy_mode):
    padded = np.pad(IMAGE, ((2, 2), (2, 2), (0, 0)), numpy_mode)
    windows = {padded[y:y + 37, x:x + 52].tobytes(): (y, x) for y in range(5) for x in range(5)}
    places = {windows[apply("pad_crop", seed=(0, i), padding=2, mode=mode).tobytes()]
              for i in range(150)}
    assert len(places) == 25  # each of them is missed with probability 0.002


def torchvision_box(rng, height, width, scale, ratio):
    """What torchvision.transforms.RandomResizedCrop samples, for an image wider than `ratio`."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(*np.log(ratio)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w
    w = round(height * ratio[1])
    return 0, (width - w) // 2, height, w


def test_boxes_are_distributed_as_torchvisions():
    shape, scale, ratio, count = (40, 120), (0.08, 1.0), (3 / 4, 4 / 3), 4000

    @tf.autograph.experimental.do_not_convert
    def box(number):
        return tf.stack(sample_box(tf.stack([number, 5]), *shape, scale, ratio))

    boxes = tf.data.Dataset.range(count, output_type=tf.int32).map(box).batch(count)
    boxes, rng = next(boxes.as_numpy_iterator()), np.random.default_rng(0)
    expected = np.array([torchvision_box(rng, *shape, scale, ratio) for _ in range(count)])
    assert (boxes[:, :2] >= 0).all() and (boxes[:, :2] + boxes[:, 2:] <= shape).all()
    for column in range(4):  # Kolmogorov-Smirnov distance: 0.043 is its 0.1 % point here
        values = np.arange(max(shape) + 1)
        ours, theirs = (np.searchsorted(np.sort(b[:, column]), values, "right") / count
                        for b in (boxes, expected))
        assert np.abs(ours - theirs).max() < 0.043, "top left height width".split()[column]


@pytest.mark.parametrize("shape, expected", [((10, 1000), (0, 493, 10, 13)),
                                             ((1000, 10), (493, 0, 13, 10))])
def test_a_picture_too_long_for_any_box_gives_its_largest_central_one(shape, expected):
    box = sample_box(tf.constant([0, 0]), *shape, (0.5, 1.0), (3 / 4, 4 / 3))
    assert tuple(int(x) for x in box) == expected


def test_random_resized_crop_of_bytes_is_that_of_their_pixels():
    file = io.BytesIO()
    Image.fromarray(IMAGE).save(file, "JPEG", quality=90)
    pixels = np.asarray(Image.open(file))
    for seed in range(5):
        np.testing.assert_array_equal(
            apply("random_resized_crop", file.getvalue(), (seed, 1), size=16),
            apply("random_resized_crop", pixels, (seed, 1), size=16))


@pytest.mark.parametrize("name, arguments", [("random_resized_crop", dict(size=16)),
                                             ("pad_crop", dict(padding=4)), ("flip", {})])
def test_a_transform_is_a_function_of_its_seed(name, arguments):
    first = [apply(name, seed=(i, 3), **arguments).tobytes() for i in range(20)]
    assert first == [apply(name, seed=(i, 3), **arguments).tobytes() for i in range(20)]
    assert len(set(first)) > 1


@pytest.mark.parametrize("choice", [dict(name="resize", size=8, interpolation="cubic"),
                                    dict(name="resize_small", size=8.5),
                                    dict(name="random_resized_crop", size=8, scale=(0.1,))])
def test_a_wrong_argument_is_refused_when_the_config_is_bound(choice):
    with pytest.raises(ConfigError):
        TRANSFORMS.bind(choice, "config.transforms[0]")


@pytest.mark.parametrize("library, arguments, said", [
    ("pillow", dict(antialias=False), "always antialiases"),
    ("opencv", dict(antialias=True), "never antialiases"),
    ("opencv", dict(interpolation="lanczos3"), "nearest, bilinear, bicubic, lanczos4, area"),
    ("tensorflow", dict(interpolation="lanczos4"), "lanczos3"),
    ("pillow", dict(interpolation="lanczos4"), "lanczos3")])
@pytest.mark.parametrize("name", ["resize", "resize_small", "random_resized_crop"])
def test_what_a_library_does_not_do_is_refused(name, library, arguments, said):
    with pytest.raises(ConfigError, match=said):
        TRANSFORMS.bind(dict(name=name, size=8, library=library, **arguments), "t")()


def test_decoding_leaves_pixels_as_they_are():
    for dct in ("accurate", "fast"):
        np.testing.assert_array_equal(apply("decode", dct=dct), IMAGE)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("library", ["tensorflow", "pillow", "opencv"])
def test_a_size_that_is_right_already_changes_nothing(library, channels):
    image = IMAGE[..., :channels]
    for interpolation in ("nearest", "bilinear", "bicubic", "area"):
        made = TRANSFORMS.bind(dict(name="resize", size=(37, 52), interpolation=interpolation,
                                    library=library), "t")()(
            {"image": tf.constant(image), "channels": channels}, None)["image"]
        np.testing.assert_array_equal(made, image)
