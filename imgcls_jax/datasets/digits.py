"""The 1,797 handwritten digits that scikit-learn ships: real images, no download."""

import importlib.util
from pathlib import Path

import numpy as np

from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.datasets import DATASETS
from imgcls_jax.errors import ConfigError
from imgcls_jax.types import Lookup, Source

FOLDS = 5


@DATASETS.register()
def digits(*, fold: int = 0, channels: int = 1) -> Source:
    """u8[8,8,1] images, 10 classes (UCI "Optical recognition of handwritten digits", test part).

    Example i is in split `test` where i mod 5 == fold, else in `train`; the 16 gray levels are
    spread over 0 to 255.
    """
    if not 0 <= fold < FOLDS:
        raise ConfigError(f"fold={fold} is out of range",
                          where="config.data.fold", fix="use 0 to 4")
    images, labels = _read()
    in_test = np.arange(len(labels)) % FOLDS == fold
    members = {"train": np.flatnonzero(~in_test), "test": np.flatnonzero(in_test)}

    def open_split(name: str) -> Lookup:
        chosen = members[name]

        def read(index):
            tf = tensorflow()
            return {"image": tf.gather(images[chosen], index),
                    "label": tf.gather(labels[chosen], index)}

        return Lookup(len(chosen), read, lambda index: f"digit {chosen[index]}",
                      lambda: labels[chosen])

    return Source(name="digits", classes=tuple("0123456789"),
                  sizes={name: len(chosen) for name, chosen in members.items()}, open=open_split,
                  channels=channels, image_size=(8, 8))


def _read() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's file, read without importing scikit-learn, which would take seconds."""
    package = Path(importlib.util.find_spec("sklearn").submodule_search_locations[0])
    rows = np.loadtxt(package / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    images = np.round(rows[:, :-1] * (255 / 16)).astype(np.uint8)
    return images.reshape(-1, 8, 8, 1), rows[:, -1].astype(np.int32)
