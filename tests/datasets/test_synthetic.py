"""Synthetic images: a function of the seed, balanced, and learnable."""

import numpy as np

from imgcls_jax import datasets
from imgcls_jax.data.batches import eval_batches
from imgcls_jax.datasets import DATASETS


def read(split, **arguments):
    source = DATASETS.get("synthetic")(examples=120, held_out=60, size=16, classes=6, **arguments)
    count = source.sizes[split]
    (batch,) = eval_batches(datasets.split(source, split), [], batch_size=count,
                                     rows=slice(0, count), channels=source.channels, classes=6)
    return batch


def test_the_nearest_class_mean_classifies_the_other_split():
    train, test = read("train"), read("validation")
    assert (np.bincount(train["label"]) == 20).all()
    means = [train["image"][train["label"] == k].mean(0) for k in range(6)]
    distances = [np.square(test["image"] - mean).sum((1, 2, 3)) for mean in means]
    assert (np.argmin(distances, 0) == test["label"]).all()


def test_images_are_a_function_of_the_seed_and_all_different():
    first = read("train", seed=1)["image"]
    np.testing.assert_array_equal(first, read("train", seed=1)["image"])
    assert (first != read("train", seed=2)["image"]).mean() > 0.9
    both = np.concatenate([first, read("validation", seed=1)["image"]])
    assert len({image.tobytes() for image in both}) == 180


def test_gray_images_have_one_channel():
    assert read("validation", channels=1)["image"].shape == (60, 16, 16, 1)
