"""Stanford Cars: 196 makes, models and years (Krause et al. 2013)."""

from pathlib import Path

import numpy as np

from imgcls_jax.datasets import DATASETS, _files, _matlab, _published
from imgcls_jax.types import Lookup, Source

# The devkit's own annotations of the test images have no classes.
ANNOTATIONS = {"train": ("devkit/cars_train_annos.mat",),
               "test": ("cars_test_annos_withlabels.mat",
                        "devkit/cars_test_annos_withlabels.mat")}


@DATASETS.register()
def cars(*, data_dir: str = "", channels: int = 3) -> Source:
    """Splits `train` and `test`.

    data_dir: what TFDS has prepared (cars196), or a folder with cars_train/*.jpg, cars_test/*.jpg,
    devkit/cars_train_annos.mat and cars_test_annos_withlabels.mat.
    """
    return _published.source(
        "cars", classes=_published.names("cars"), sizes={"train": 8_144, "test": 8_041},
        data_dir=data_dir, files=_open, tfds="cars196", home="stanford_cars", channels=channels,
        layout="cars_train/*.jpg, cars_test/*.jpg, devkit/cars_train_annos.mat and "
               "cars_test_annos_withlabels.mat")


def _open(root: Path, split: str) -> Lookup:
    annotations = _files.place(root, *ANNOTATIONS[split])
    labels = _matlab.column(annotations, "annotations", "class").astype(np.int32) - 1  # from 1
    names = _matlab.column(annotations, "annotations", "fname")
    files = _files.find(root, f"cars_{split}", f"cars_{split}.tgz", f"cars_{split}.tar")
    return _files.lookup(files, _files.pick(files, list(map(str, names))), labels)
