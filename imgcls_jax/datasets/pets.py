"""Oxford-IIIT Pet: 37 breeds of cats and dogs (Parkhi et al. 2012)."""

from pathlib import Path

import numpy as np

from imgcls_jax.datasets import DATASETS, _files, _published
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup, Source

LISTS = {"train": "trainval.txt", "test": "test.txt"}


@DATASETS.register()
def pets(*, data_dir: str = "", channels: int = 3) -> Source:
    """Splits `train` (trainval.txt) and `test`; the label is the breed.

    data_dir: what TFDS has prepared (oxford_iiit_pet), or a folder with images and annotations,
    as folders or .tar.gz.
    """
    return _published.source(
        "pets", classes=_published.names("pets"), sizes={"train": 3_680, "test": 3_669},
        data_dir=data_dir, files=_open, tfds="oxford_iiit_pet", home="oxford-iiit-pet",
        channels=channels, layout="images/*.jpg and annotations/trainval.txt and test.txt")


def _open(root: Path, split: str) -> Lookup:
    annotations = _files.find(root, "annotations", "annotations.tar.gz", "annotations.tar")
    number = _files.named(annotations, LISTS[split])
    rows = [line.split() for line in annotations.read(number).decode().splitlines()
            if line.strip() and not line.startswith("#")]
    try:  # name, class from 1, species, breed among its species
        labels = np.array([int(row[1]) for row in rows], np.int32) - 1
    except (IndexError, ValueError) as error:
        raise DataError(f"a line is not a name and three numbers: {error}",
                        where=annotations.where(number), fix="copy the file again") from error
    files = _files.find(root, "images", "images.tar.gz", "images.tar")
    return _files.lookup(files, _files.pick(files, [f"{row[0]}.jpg" for row in rows]), labels)
