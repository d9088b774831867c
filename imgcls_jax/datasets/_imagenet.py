"""The 1,000 ImageNet classes, and images that lie in folders of their WordNet ids."""

import functools
import importlib.util
import os
import re
from pathlib import Path

import numpy as np

from imgcls_jax.datasets import _files, _paths, _published
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup, Source

CLASSES = _published.names("imagenet2012")
NUMBER = {os.fsencode(wnid): number for number, wnid in enumerate(CLASSES)}


def by_folder(files: _files.Files, *, within: bytes = b"", shuffle: bool = True) -> Lookup:
    """Images whose folder is named by their WordNet id, labelled among the 1,000 classes."""
    chosen = _files.images(files, within)
    labels = np.empty(len(chosen), np.int32)
    for place, number in enumerate(chosen):
        folder = _files.tail(files.names[number], 2).partition(b"/")[0]
        if folder not in NUMBER:
            raise DataError(f"{_paths.say(folder)!r} is not one of ImageNet's 1,000 WordNet ids",
                            where=files.where(int(number)))
        labels[place] = NUMBER[folder]
    return _files.lookup(files, chosen, labels, shuffle=shuffle)


def validation_numbers(files: _files.Files) -> tuple[np.ndarray, np.ndarray]:
    """(numbers of the files, numbers of the images from 0) of ILSVRC2012_val_00000001.JPEG etc.,
    in their order, whatever folders they are in."""
    chosen = _files.images(files)
    matches = [re.fullmatch(rb"ILSVRC2012_val_(\d{8})\.JPEG", _files.tail(files.names[number], 1))
               for number in chosen]
    for number, match in zip(chosen, matches, strict=True):
        if match is None:
            raise DataError("the file is not named as an ImageNet validation image",
                            where=files.where(int(number)),
                            fix="use the names ILSVRC2012_val_00000001.JPEG to _00050000.JPEG")
    return chosen, np.array([int(match[1]) - 1 for match in matches], np.int64)


def validation(files: _files.Files) -> Lookup:
    """The validation images in the order of their numbers: in folders of WordNet ids, or flat and
    labelled by the list that TFDS is packaged with."""
    if any(_files.tail(name, 2).partition(b"/")[0] in NUMBER for name in files.names[:10]):
        return by_folder(files, shuffle=False)
    chosen, which = validation_numbers(files)
    truth = validation_labels()
    if len(which) and which.max() >= len(truth):
        raise DataError(f"image number {which.max() + 1:,} is above the last, {len(truth):,}",
                        where=_paths.say(files.path))
    return _files.lookup(files, chosen, truth[which], shuffle=False)


@functools.cache
def validation_labels() -> np.ndarray:
    """i32[50000], by the numbers of the images."""
    package = importlib.util.find_spec("tensorflow_datasets")
    if package is None:
        raise DataError("validation images in a flat folder need the labels that come with TFDS",
                        fix="pip install tensorflow-datasets, or move the images into folders "
                            "named by WordNet ids")
    listed = Path(package.submodule_search_locations[0], "datasets", "imagenet2012",
                  "validation_labels.txt")
    return np.array([NUMBER[wnid] for wnid in listed.read_bytes().split()], np.int32)


def numbers(wnids: tuple[str, ...]) -> tuple[int, ...]:
    """Class numbers of WordNet ids, ascending."""
    return tuple(sorted(NUMBER[os.fsencode(wnid)] for wnid in wnids))


def test_set(name: str, size: int, data_dir: str, channels: int, *candidates: str, tfds: str,
             subset: tuple[int, ...] | None = None) -> Source:
    """A test split for models of ImageNet, in folders of WordNet ids."""
    return _published.source(
        name, classes=CLASSES, sizes={"test": size}, data_dir=data_dir, tfds=tfds,
        channels=channels, subset=subset, layout=f"{candidates[0]}/nXXXXXXXX/* or {candidates[-1]}",
        files=lambda root, split: by_folder(_files.find(root, *candidates, itself=True)))
