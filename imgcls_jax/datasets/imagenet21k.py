"""ImageNet-21k: the whole of ImageNet, of which ILSVRC 2012 is a part (arXiv 1409.0575)."""

import array
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from imgcls_jax.datasets import DATASETS, _files, _paths, _published, _tar
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup, Source

# By release: classes, images per split.
PUBLISHED = {"fall11": (21_841, {"train": 14_197_122}),
             "winter21": (19_167, {"train": 13_153_500}),
             "winter21_processed": (10_450, {"train": 11_060_223, "validation": 522_500})}
PLACES = {"fall11": {"train": ("fall11_whole", "fall11_whole.tar")},
          "winter21": {"train": ("winter21_whole", "winter21_whole.tar")},
          "winter21_processed": {"train": ("imagenet21k_train",),
                                 "validation": ("imagenet21k_val",)}}


@DATASETS.register()
def imagenet21k(*, data_dir: str = "", channels: int = 3, release: Literal[
        "fall11", "winter21", "winter21_processed"] = "winter21_processed") -> Source:
    """Classes in the order of their WordNet ids, which are their names if the data is present.

    release: winter21_processed is that of arXiv 2104.10972: smaller images, classes of at least
    500, and a validation split; the others have none: use a part of `train`.
    data_dir: a folder with imagenet21k_train/nXXXXXXXX/*.JPEG and imagenet21k_val/...; or with
    fall11_whole or winter21_whole, of nXXXXXXXX.tar as distributed or of unpacked folders, or
    that as one .tar. The offsets of the images in the tar files are found once and kept.
    """
    count, sizes = PUBLISHED[release]

    def files(root: Path, split: str) -> Lookup:
        place = _files.place(root, *PLACES[release][split])
        found = _Tars(place) if place.is_dir() and _tars(place) else _files.opened(place)
        return _open(found, count)

    return _published.source(
        "imagenet21k", classes=_classes(data_dir, release), sizes=sizes, data_dir=data_dir,
        files=files, channels=channels,
        layout=" and ".join(f"{places[0]}/nXXXXXXXX" for places in PLACES[release].values()))


def _classes(data_dir: str, release: str) -> tuple[str, ...]:
    """Names of the folders or tar files of the classes; numbers if the data is not present."""
    place = Path(data_dir).expanduser() / PLACES[release]["train"][0]
    if data_dir and place.is_dir():
        names = sorted({name.split(".")[0] for name in os.listdir(place) if name.startswith("n")})
        if len(names) == PUBLISHED[release][0]:
            return tuple(names)
    return tuple(map(str, range(PUBLISHED[release][0])))


def _open(files: _files.Files, count: int) -> Lookup:
    chosen = _files.images(files)
    folders = np.array([_files.tail(files.names[number], 2).partition(b"/")[0]
                        for number in chosen], "S9")
    classes, labels = np.unique(folders, return_inverse=True)
    if len(classes) != count:
        raise DataError(f"{count:,} classes were published, but {len(classes):,} were found",
                        where=_paths.say(files.path),
                        fix="add what is missing, or set config.data.release to the release "
                            "that this is")
    return _files.lookup(files, chosen, labels.astype(np.int32))


def _tars(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder)
                  if entry.name.startswith("n") and entry.name.endswith(".tar")
                  and entry.is_file())


class _Tars:
    """A folder with one tar file per class, too many to keep open, read as one archive."""

    def __init__(self, folder: Path):
        self.path = os.fsencode(folder)
        self._tars = _tars(folder)
        self._states = [_paths.state(folder / tar) for tar in self._tars]
        index = _paths.learn(_paths.learned([], {"tars": 1, "files": self._states}), self._save)
        self._places = np.load(index / "places.npy")  # i64[n,3]: tar, offset, size
        self.names = (index / "names").read_bytes().split(b"\0")[:-1]

    def _save(self, index: Path):
        rows, names = array.array("q"), []
        for number, tar in enumerate(self._tars):
            path = os.path.join(self.path, os.fsencode(tar))
            for name, offset, size in _members(path):
                rows.extend((number, offset, size))
                names.append(os.fsencode(tar.removesuffix(".tar")) + b"/" + name)
        np.save(index / "places.npy", np.array(rows, np.int64).reshape(-1, 3))
        (index / "names").write_bytes(b"".join(name + b"\0" for name in names))

    def read(self, number: int) -> bytes:
        tar, offset, size = map(int, self._places[number])
        path = os.path.join(self.path, os.fsencode(self._tars[tar]))
        with open(path, "rb") as file:
            data = os.pread(file.fileno(), size, offset)
            if _paths.state(path, os.fstat(file.fileno())) != self._states[tar]:
                raise _paths.changed(path, "archive")
        if len(data) != size:
            raise DataError("the archive is cut off within the image", where=self.where(number),
                            fix="copy the archive again")
        return data

    def version(self, number: int) -> str:
        """What changes when the image's bytes do (`_paths.version`)."""
        tar, *place = map(int, self._places[number])
        return json.dumps([self._states[tar], place])

    def where(self, number: int) -> str:
        tar = self._tars[int(self._places[number][0])]
        return f"{_paths.say(self.path)}/{tar}: {_paths.say(self.names[number])}"


def _members(path: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name without folders, offset, size) of every file in a tar."""
    with open(path, "rb") as file:
        try:
            entries = _tar.entries(lambda offset, size: os.pread(file.fileno(), size, offset), 0,
                                   os.fstat(file.fileno()).st_size)
            yield from ((_files.tail(name, 1), offset, size)
                        for name, kind, offset, size in entries if kind == _tar.FILE)
        except DataError as error:
            raise DataError(error.what, where=_paths.say(path), fix="copy it again") from error
