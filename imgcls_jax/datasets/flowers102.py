"""Oxford Flowers-102 (Nilsback and Zisserman 2008)."""

from pathlib import Path

import numpy as np

from imgcls_jax.datasets import DATASETS, _files, _matlab, _published
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup, Source

SETS = {"train": "trnid", "validation": "valid", "test": "tstid"}


@DATASETS.register()
def flowers102(*, data_dir: str = "", channels: int = 3) -> Source:
    """Splits `train` and `validation` of 10 images a class, and `test`.

    data_dir: what TFDS has prepared (oxford_flowers102), or a folder with jpg/image_*.jpg or
    102flowers.tgz, imagelabels.mat and setid.mat. Some papers train on `test`, the largest split,
    and say so.
    """
    return _published.source(
        "flowers102", classes=_published.names("flowers102"), data_dir=data_dir, files=_open,
        sizes={"train": 1_020, "validation": 1_020, "test": 6_149}, tfds="oxford_flowers102",
        home="flowers-102", channels=channels,
        layout="jpg/image_*.jpg or 102flowers.tgz, with imagelabels.mat and setid.mat")


def _open(root: Path, split: str) -> Lookup:
    every = _matlab.column(_files.place(root, "imagelabels.mat"), "labels")  # from 1
    ids = _matlab.column(_files.place(root, "setid.mat"), SETS[split])  # from 1
    if len(ids) and not 1 <= ids.min() <= ids.max() <= len(every):
        raise DataError(f"images 1 to {len(every):,} have labels, but {split} has {ids.min()} to "
                        f"{ids.max():,}", where=str(root), fix="copy both .mat files again")
    files = _files.find(root, "jpg", "102flowers.tgz", "102flowers.tar")
    chosen = _files.pick(files, [f"image_{number:05d}.jpg" for number in ids])
    return _files.lookup(files, chosen, every[ids - 1].astype(np.int32) - 1)
