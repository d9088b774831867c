"""ImageNet validation images with reassessed labels, ReaL (arXiv 2006.07159)."""

import json
from pathlib import Path

import numpy as np

from imgcls_jax.datasets import DATASETS, _files, _imagenet, _published
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup, Source


@DATASETS.register()
def imagenet_real(*, data_dir: str = "", channels: int = 3) -> Source:
    """Split `validation`, multilabel: f32[1000] of 0 and 1 for each image.

    The 3,163 images without a label are left out, as in the paper. data_dir: a folder with
    real.json, a list of labels for each image, and the validation images of ImageNet: val/*.JPEG,
    val/nXXXXXXXX/*.JPEG or ILSVRC2012_img_val.tar.
    """
    return _published.source(
        "imagenet_real", classes=_imagenet.CLASSES, sizes={"validation": 46_837},
        data_dir=data_dir, files=_open, channels=channels, kind="multilabel",
        layout="real.json with val/*.JPEG, val/nXXXXXXXX/*.JPEG or ILSVRC2012_img_val.tar")


def _open(root: Path, split: str) -> Lookup:
    file = _files.place(root, "real.json")
    files = _files.find(root, "val", "validation", "ILSVRC2012_img_val.tar")
    chosen, which = _imagenet.validation_numbers(files)
    try:
        given = json.loads(file.read_bytes())
        labels = np.zeros((len(given), len(_imagenet.CLASSES)), bool)
        for row, classes in zip(labels, given, strict=True):
            row[classes] = True
    except (ValueError, TypeError, IndexError) as error:
        raise DataError(f"the file is not a list of label lists: {error}", where=str(file),
                        fix="download real.json of reassessed-imagenet again") from error
    if len(which) and which.max() >= len(labels):
        raise DataError(f"the file has labels of {len(labels):,} images, but there is image number "
                        f"{which.max() + 1:,}", where=str(file),
                        fix="download real.json of reassessed-imagenet again")
    known = labels[which].any(1)
    return _files.lookup(files, chosen[known], labels[which[known]], shuffle=False)
