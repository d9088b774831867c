"""Every augmentation, as tf.data runs it: without AutoGraph, on images of unknown size."""

import numpy as np
import pytest
import tensorflow as tf

from imgcls_jax.errors import ConfigError
from imgcls_jax.transforms import TRANSFORMS

EVERY = {
    "auto_augment": {}, "auto_augment/svhn": dict(policy="svhn", fill=(1, 2, 3)),
    "auto_augment_timm": {}, "auto_augment_timm/v0": dict(policy="v0r", std=0.5),
    "augmix": dict(all_operations=False, interpolation="nearest"), "augmix/bilinear": {},
    "augmix_timm": dict(depth=2), "color_jitter": dict(brightness=0.4, hue=0.1),
    "cutout": dict(size=8), "flip": dict(axis="vertical"), "gaussian_blur": {},
    "gaussian_blur/torchvision": dict(kernel_size=5, p=0.8), "grayscale": dict(p=0.5),
    "lighting": {}, "randaugment": {}, "randaugment_timm": {},
    "randaugment_timm/bicubic": dict(increasing=False, interpolation="bicubic", p=1.0),
    "randaugment_torchvision": dict(operations=3), "random_erasing": dict(p=1.0, count=2),
    "random_erasing/pixel": dict(mode="pixel"), "rotation": dict(degrees=15),
    "solarize": dict(p=0.5), "three_augment": {}, "three_augment/plain": dict(color_jitter=0.0),
    "trivial_augment_wide": {},
}
UNCHANGED = {"grayscale", "lighting"}  # an image of one channel
# Their operations and how they run are those of auto_augment_timm and augmix; randaugment runs in a
# graph in test_randaugment.py.
ALIKE = {"auto_augment", "augmix_timm", "randaugment", "randaugment_timm",
         "randaugment_torchvision", "trivial_augment_wide"}


def every_transform(further=frozenset()):
    """Those of `further`, and a transform with other arguments, are nightly."""
    return pytest.mark.parametrize("key", [
        pytest.param(key, marks=pytest.mark.nightly if "/" in key or key in further else ())
        for key in EVERY])


def graph(transform, image, seeds, known=False):
    """A dataset of one result per seed; known: whether the graph knows the size of the image."""
    @tf.autograph.experimental.do_not_convert
    def example(seed):
        pixels = tf.constant(image)
        if not known:
            pixels = pixels[:image.shape[0] + 0 * seed, :image.shape[1] + 0 * seed]
        return transform({"image": pixels, "channels": image.shape[-1]}, tf.stack([seed, 7]))

    data = tf.data.Dataset.range(seeds, output_type=tf.int32).map(example)
    shape = image.shape if known else (None, None, image.shape[-1])
    assert data.element_spec["image"] == tf.TensorSpec(shape, tf.uint8)
    return data


def eagerly(transform, image, seeds):
    """One result per seed. So a batch that failed is tried, example by example."""
    example = {"image": tf.constant(image), "channels": image.shape[-1]}
    return [transform(example, tf.constant([seed, 7]))["image"].numpy() for seed in range(seeds)]


def transform_of(key):
    return TRANSFORMS.bind(dict(name=key.split("/")[0], **EVERY[key]), key)()


@every_transform(ALIKE)
def test_in_a_graph_it_keeps_type_and_shape_and_does_what_it_does_eagerly(key):
    image = np.random.default_rng(0).integers(0, 256, (19, 26, 3), np.uint8)
    transform = transform_of(key)
    first = [made["image"] for made in graph(transform, image, 8).as_numpy_iterator()]
    again = eagerly(transform, image, 8)
    for one, other in zip(first, again, strict=True):
        assert one.shape == image.shape and one.dtype == np.uint8
        np.testing.assert_array_equal(one, other)
    assert len({one.tobytes() for one in first}) > 1


@every_transform()
def test_an_image_of_one_channel_stays_one_and_is_a_function_of_the_seed(key):
    image = np.random.default_rng(0).integers(0, 256, (19, 26, 1), np.uint8)
    results = eagerly(transform_of(key), image, 8)
    assert {(one.shape, one.dtype) for one in results} == {(image.shape, np.dtype(np.uint8))}
    np.testing.assert_array_equal(eagerly(transform_of(key), image, 2), results[:2])
    changed = any((one != image).any() for one in results)
    assert changed != (key in UNCHANGED)


@pytest.mark.parametrize("name, arguments", [
    ("color_jitter", dict(brightness=0.4)), ("cutout", dict(size=8)),
    ("random_erasing", dict(p=1.0)), ("rotation", dict(degrees=15)),
    pytest.param("augmix", dict(all_operations=False), marks=pytest.mark.nightly),
    pytest.param("auto_augment", {}, marks=pytest.mark.nightly)])
def test_a_known_size_stays_known(name, arguments):
    image = np.random.default_rng(1).integers(0, 256, (12, 17, 1), np.uint8)
    graph(TRANSFORMS.get(name)(**arguments), image, 1, known=True)


@pytest.mark.parametrize("key", EVERY)
def test_no_other_field_of_the_example_is_touched(key):
    image = tf.zeros((24, 24, 3), tf.uint8)
    example = {"image": image, "channels": 3, "label": 5}
    out = transform_of(key)(example, tf.constant([1, 2]))
    assert {name: value for name, value in out.items() if name != "image"} == {
        "channels": 3, "label": 5}


@pytest.mark.parametrize("name, arguments", [
    ("randaugment_timm", dict(operations=0)), ("randaugment_timm", dict(std=-1)),
    ("randaugment_torchvision", dict(magnitude=31)), ("randaugment_torchvision", dict(bins=1)),
    ("trivial_augment_wide", dict(bins=1)), ("augmix", dict(severity=11)),
    ("augmix_timm", dict(width=0)), ("color_jitter", {}), ("color_jitter", dict(hue=0.6)),
    ("color_jitter", dict(brightness=-0.1)), ("color_jitter", dict(contrast=(1.2, 0.8))),
    ("cutout", dict(size=5)), ("gaussian_blur", dict(kernel_size=4)),
    ("gaussian_blur", dict(sigma=(0.0, 1.0))), ("random_erasing", dict(count=0)),
    ("random_erasing", dict(scale=(0.5, 0.2))), ("auto_augment", dict(policy="mnist")),
    ("flip", dict(axis="diagonal"))])
def test_numbers_that_mean_nothing_are_refused(name, arguments):
    with pytest.raises(ConfigError):
        TRANSFORMS.bind(dict(name=name, **arguments), "config.transforms[0]")()


def test_a_crop_of_two_sides_and_of_a_random_interpolation():
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)

    def crops(interpolation):
        transform = TRANSFORMS.get("random_resized_crop")(
            size=(12, 17), scale=(0.3, 0.6), interpolation=interpolation)
        assert transform.size == (12, 17)
        return [transform({"image": tf.constant(image), "channels": 3}, tf.constant([seed, 3]))[
            "image"].numpy() for seed in range(20)]

    which = set()
    for mixed, *plain in zip(*map(crops, ("random", "bilinear", "bicubic")), strict=True):
        assert mixed.shape == (12, 17, 3)
        same = [np.array_equal(mixed, one) for one in plain]
        assert sum(same) == 1
        which.add(same.index(True))
    assert which == {0, 1}
