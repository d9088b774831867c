"""ImageNet-V2: test images collected as ImageNet's were, ten years later (arXiv 1902.10811)."""

import re
from typing import Literal

import numpy as np

from imgcls_jax.datasets import DATASETS, _files, _imagenet, _paths, _published
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup, Source

FOLDERS = {"matched-frequency": "imagenetv2-matched-frequency-format-val",
           "threshold-0.7": "imagenetv2-threshold0.7-format-val",
           "top-images": "imagenetv2-top-images-format-val"}
TFDS = {"top-images": "topimages"}  # the only name that differs in TFDS


@DATASETS.register()
def imagenet_v2(*, data_dir: str = "", channels: int = 3, variant: Literal[
        "matched-frequency", "threshold-0.7", "top-images"] = "matched-frequency") -> Source:
    """Split `test`: 10 images of each of the 1,000 ImageNet classes.

    data_dir: a folder with imagenetv2-VARIANT-format-val/0 to 999/*.jpeg, or its tar or tar.gz, or
    prepared by TFDS. Its folders are numbers: sorted as text, 10 would come before 2.
    """
    folder = FOLDERS[variant]
    archive = folder.removesuffix("-format-val")
    places = (folder, f"{folder}.tar", f"{archive}.tar", f"{archive}.tar.gz")
    return _published.source(
        "imagenet_v2", classes=_imagenet.CLASSES, sizes={"test": 10_000}, data_dir=data_dir,
        tfds=f"imagenet_v2/{TFDS.get(variant, variant)}", channels=channels,
        layout=f"{folder}/0 to 999/*.jpeg or {archive}.tar.gz",
        files=lambda root, split: _open(_files.find(root, *places, itself=True)))


def _open(files: _files.Files) -> Lookup:
    chosen = _files.images(files)
    folders = [_files.tail(files.names[number], 2).partition(b"/")[0] for number in chosen]
    for folder, number in zip(folders, chosen, strict=True):
        if not re.fullmatch(rb"\d{1,3}", folder):
            raise DataError(f"{_paths.say(folder)!r} is not a class number from 0 to 999",
                            where=files.where(int(number)))
    return _files.lookup(files, chosen, np.array([int(folder) for folder in folders], np.int32))
