"""Resizing as Pillow does it, of 200 random sizes."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from imgcls_jax.data.decoding import pillow
from imgcls_jax.transforms import TRANSFORMS


@functools.cache
def picture(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """Smooth parts, edges and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x * rng.uniform(0.05, 2) + y * rng.uniform(0.05, 2))
                      for _ in range(channels)], -1)
    blocks = (x // 7 + y // 5)[..., None] % 2
    return np.clip(127 + 90 * waves + 60 * blocks + rng.normal(0, 15, waves.shape), 0,
                   255).astype(np.uint8)


def sizes(count: int):
    rng = np.random.default_rng(0)
    for number in range(count):
        if number % 10 == 0:  # a very long one
            yield number, (int(rng.integers(2, 12)), int(rng.integers(80, 300)))
        else:
            yield number, tuple(map(int, rng.integers(2, 120, 2)))


def by_pillow(image, height, width, kind):
    opened = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    resized = np.asarray(opened.resize((width, height), pillow.FILTERS[kind]))
    return resized.reshape(height, width, -1)


@pytest.mark.parametrize("kind", ["bilinear", "bicubic", "lanczos3", "area", "nearest"])
def test_resizing_is_pillows_for_200_sizes(kind):
    rng = np.random.default_rng(1)
    for number, (height, width) in sizes(200):
        new = tuple(map(int, rng.integers(1, 150, 2)))
        channels = 1 if number % 4 == 0 else 3
        image = picture(height, width, channels, number)
        resize = TRANSFORMS.bind(dict(name="resize", size=new, interpolation=kind,
                                      library="pillow"), "t")()
        made = resize({"image": tf.constant(image), "channels": channels}, None)["image"]
        np.testing.assert_array_equal(made, by_pillow(image, *new, kind))
