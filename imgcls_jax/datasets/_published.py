"""What all published datasets share: facts known without the data, and checked against it."""

import functools
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from imgcls_jax.datasets import DATASETS
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup, Shards, Source

VERSION = re.compile(r"\d+\.\d+\.\d+")


@functools.cache
def names(dataset: str) -> tuple[str, ...]:
    """The publisher's class names in the order of the labels, from `_names/DATASET.txt`."""
    file = Path(__file__).parent / "_names" / f"{dataset}.txt"
    return tuple(file.read_text().splitlines())


def source(name: str, *, classes: tuple[str, ...], sizes: Mapping[str, int], data_dir: str,
           files: Callable[[Path, str], Lookup], layout: str, tfds: str = "", home: str = "",
           partial: bool | None = None, **facts) -> Source:
    """A Source whose splits are read as TFDS has prepared them, or from the distributed files.

    sizes: as published; DataError if a split has another, unless `partial`, which takes what is
    there, with a warning; None: the dataset has no such argument. files: (data_dir, split) ->
    Lookup. layout: what `files` looks for, for messages. tfds: the name in TFDS, with the same
    splits and classes. home: the folder in data_dir that the files unpack to, if they have one.
    """
    @functools.cache
    def open_split(split: str) -> Lookup | Shards:
        if tfds and is_prepared(tfds, data_dir):
            opened = _of_tfds(tfds, data_dir, split, layout)
        else:
            opened = _of_files(name, data_dir, home, files, split, layout, tfds)
        if opened.size != sizes[split] and not (partial and opened.size):
            raise DataError(f"{name} was published with {sizes[split]:,} images in {split!r}, but "
                            f"{opened.size:,} were found", where=data_dir or tfds,
                            fix="add what is missing, or remove what does not belong; read a part "
                                "of a dataset " + ("as config.data.name='folder'" if partial is
                                                   None else "with config.data.partial=True"))
        return opened

    found = {split: open_split(split).size if partial else size for split, size in sizes.items()}
    if partial:
        shares = (f"{found[split]:,} of {size:,} in {split!r}" for split, size in sizes.items())
        warnings.warn(f"{name} is read in part: {', '.join(shares)}; what is measured on it does "
                      "not compare with published numbers", stacklevel=2)
    return Source(name=name, classes=classes, sizes=found, open=open_split, **facts)


def is_prepared(tfds: str, data_dir: str) -> bool:
    """Whether to read it with TFDS: from its default folder, a bucket, or its files in data_dir."""
    if not data_dir or "://" in data_dir:
        return True
    folder = Path(data_dir).expanduser() / tfds.split(":")[0]
    return folder.is_dir() and any(VERSION.fullmatch(place.name) for place in folder.iterdir())


def _of_tfds(tfds: str, data_dir: str, split: str, layout: str) -> Lookup | Shards:
    try:
        prepared = DATASETS.get("tfds")(dataset=tfds, data_dir=data_dir)
    except DataError as error:
        fix = f"{error.fix}; or set config.data.data_dir to a folder with {layout}"
        raise DataError(error.what, where=error.where, fix=fix) from error
    if split not in prepared.sizes:
        raise DataError(f"TFDS has prepared {sorted(prepared.sizes)} but not {split!r}",
                        where=data_dir, fix="prepare it again with all its files in place")
    return prepared.open(split)


def _of_files(name, data_dir, home, files, split, layout, tfds) -> Lookup:
    if not data_dir:
        raise DataError(f"the folder of {name} is not set", where="config.data.data_dir",
                        fix=f"set it to a folder with {layout}")
    root = Path(data_dir).expanduser()
    if not root.exists():
        raise DataError("there is no such folder", where=data_dir,
                        fix=f"set config.data.data_dir to a folder with {layout}")
    if home and (root / home).is_dir():
        root = root / home
    try:
        return files(root, split)
    except DataError as error:
        fix = f"lay it out as {layout}"
        fix += f", or prepare it: tfds build {tfds} --data_dir={data_dir}" if tfds else ""
        raise DataError(error.what, where=error.where or data_dir, fix=error.fix or fix) from error
