"""Food-101 (Bossard et al. 2014): 101 dishes; the labels of the training images are noisy."""

from pathlib import Path

import numpy as np

from imgcls_jax.datasets import DATASETS, _files, _published
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup, Source

CLASSES = _published.names("food101")
LISTS = {"train": "train.txt", "validation": "test.txt"}


@DATASETS.register()
def food101(*, data_dir: str = "", channels: int = 3) -> Source:
    """Splits `train`, 750 images a class, and `validation`, 250 a class (its test.txt).

    data_dir: what TFDS has prepared, or the folder food-101 or its contents: images/CLASS/*.jpg,
    meta/train.txt, meta/test.txt. Classes have the order of meta/classes.txt, in which cheesecake
    comes before cheese_plate; sorted by bytes it is the other way round.
    """
    return _published.source(
        "food101", classes=CLASSES, sizes={"train": 75_750, "validation": 25_250},
        data_dir=data_dir, files=_open, tfds="food101", home="food-101", channels=channels,
        layout="images/CLASS/*.jpg with meta/train.txt and meta/test.txt")


def _open(root: Path, split: str) -> Lookup:
    listed = _files.place(root, f"meta/{LISTS[split]}")
    names = listed.read_text().split()
    number = {name: number for number, name in enumerate(CLASSES)}
    unknown = [name for name in names if name.partition("/")[0] not in number]
    if unknown:
        raise DataError(f"{unknown[0]!r} is not in one of the 101 classes", where=str(listed),
                        fix="copy the file again")
    labels = np.array([number[name.partition("/")[0]] for name in names], np.int32)
    files = _files.find(root, "images")
    return _files.lookup(files, _files.pick(files, [f"{name}.jpg" for name in names]), labels)
