"""The digits are scikit-learn's, and their folds a partition."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from imgcls_jax import datasets
from imgcls_jax.data.batches import eval_batches
from imgcls_jax.datasets import DATASETS
from imgcls_jax.errors import ConfigError


def read_all(source, split, **arguments):
    count = source.sizes[split]
    (batch,) = eval_batches(datasets.split(source, split), [], batch_size=count,
                                     rows=slice(0, count), channels=source.channels, **arguments)
    return batch


def test_digits_are_those_of_scikit_learn_on_256_levels():
    source = DATASETS.get("digits")(fold=3)
    expected, in_test = load_digits(), np.arange(1797) % 5 == 3
    for split, members in (("test", in_test), ("train", ~in_test)):
        batch = read_all(source, split, classes=10)
        np.testing.assert_array_equal(batch["label"], expected.target[members])
        levels = np.floor(expected.images[members] * 255 / 16 + 0.5)
        np.testing.assert_array_equal(batch["image"][..., 0], levels)
        assert batch["image"].shape[1:] == (*source.image_size, 1)


def test_every_digit_is_in_the_test_split_of_one_fold():
    sizes = [DATASETS.get("digits")(fold=fold).sizes for fold in range(5)]
    assert [s["test"] for s in sizes] == [360, 360, 359, 359, 359]
    assert all(s["train"] + s["test"] == 1797 for s in sizes)


def test_three_channels_are_three_times_the_gray():
    batch = read_all(DATASETS.get("digits")(channels=3), "test")
    assert batch["image"].shape == (360, 8, 8, 3)
    assert (batch["image"] == batch["image"][..., :1]).all()


def test_a_fold_that_is_none_is_refused():
    with pytest.raises(ConfigError):
        DATASETS.get("digits")(fold=5)
