"""ImageNet (ILSVRC 2012): as it is distributed, or as TFDS prepares it."""

from pathlib import Path

from imgcls_jax.datasets import DATASETS, _files, _imagenet, _published
from imgcls_jax.types import Lookup, Source

SIZES = {"train": 1_281_167, "validation": 50_000}
LAYOUT = ("train/nXXXXXXXX/*.JPEG and val/*.JPEG or val/nXXXXXXXX/*.JPEG, or of "
          "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar")


@DATASETS.register()
def imagenet2012(*, data_dir: str = "", channels: int = 3, partial: bool = False) -> Source:
    """1,000 classes in the order of their WordNet ids (arXiv 1409.0575), which are their names.

    data_dir: what TFDS has prepared, or the files as distributed, in the layout of LAYOUT; the tar
    files are read in place, and the index of the large one is kept. Their train split has one fixed
    shuffled order (TFDS shuffles it too), their validation split that of the file names. Raises
    DataError, when a split is opened, if it is missing or incomplete. partial: takes whatever part
    of the images there is, to rehearse a recipe; an epoch is then that part.
    """
    return _published.source("imagenet2012", classes=_imagenet.CLASSES, sizes=SIZES,
                             data_dir=data_dir, tfds="imagenet2012", files=_open, layout=LAYOUT,
                             channels=channels, partial=partial)


def _open(root: Path, split: str) -> Lookup:
    if split == "train":
        return _imagenet.by_folder(_files.find(root, "train", "ILSVRC2012_img_train.tar"))
    return _imagenet.validation(_files.find(root, "val", "validation", "ILSVRC2012_img_val.tar"))
