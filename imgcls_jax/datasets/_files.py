"""Images in a folder or an archive, by name: the form in which most datasets are distributed."""

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.datasets import _archive, _paths, shuffled
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup

IMAGES = (b".jpg", b".jpeg", b".png")
DEPTH = 6  # folders within each other; symbolic links may form a loop


class Folder:
    """The files below a folder, with the interface of `_archive.Archive`."""

    def __init__(self, path: str | Path):
        self.path = os.fsencode(path)
        self.names = list(_walk(self.path, b"", DEPTH))

    def read(self, number: int) -> bytes:
        with open(os.path.join(self.path, self.names[number]), "rb") as file:
            return file.read()

    def where(self, number: int) -> str:
        return _paths.say(os.path.join(self.path, self.names[number]))

    def version(self, number: int) -> str:
        return _paths.version(os.path.join(self.path, self.names[number]))


Files = Folder | _archive.Archive


def _walk(folder: bytes, above: bytes, depth: int) -> Iterator[bytes]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(b"."):
                continue
            if entry.is_dir():
                if depth:
                    yield from _walk(entry.path, above + entry.name + b"/", depth - 1)
            elif entry.is_file():  # no pipe, which would block
                yield above + entry.name


def place(root: Path, *candidates: str, itself: bool = False) -> Path:
    """The first of these that exists below root; with `itself`, root if it has such a name."""
    for candidate in candidates:
        found = root / candidate
        if found.is_dir() or found.is_file():
            return found
    if itself and root.name in candidates:
        return root
    what = candidates[0] if len(candidates) == 1 else "none of " + ", ".join(candidates)
    raise DataError(f"{what} is missing" if len(candidates) == 1 else f"{what} exists",
                    where=str(root))


def find(root: Path, *candidates: str, itself: bool = False) -> Files:
    """The files of the first folder or archive of these names, found as by `place`."""
    return opened(place(root, *candidates, itself=itself))


def opened(path: Path) -> Files:
    if path.is_dir():
        return Folder(path)
    return _archive_of(str(path), *_paths.state(str(path)))


@functools.lru_cache(2)  # the splits of a dataset often lie in one archive
def _archive_of(path: str, *state: str | int) -> _archive.Archive:
    return _archive.Archive(path)


def tail(name: bytes, parts: int) -> bytes:
    """The last `parts` parts of a path."""
    return b"/".join(name.split(b"/")[-parts:])


def numbers(files: Files, parts: int) -> dict[bytes, int]:
    """The last `parts` parts of each file's path -> its number."""
    return {tail(name, parts): number for number, name in enumerate(files.names)}


def named(files: Files, name: str) -> int:
    """The number of the only file with this name, in any folder."""
    found = numbers(files, 1).get(os.fsencode(name))
    if found is None:
        raise DataError(f"{name} is missing", where=_paths.say(files.path))
    return found


def pick(files: Files, wanted: list[str]) -> np.ndarray:
    """i64[n]: the numbers of files whose names end in these paths."""
    parts = wanted[0].count("/") + 1 if wanted else 1
    known = numbers(files, parts)
    missing = [name for name in wanted if os.fsencode(name) not in known]
    if missing:
        raise DataError(f"{len(missing):,} of {len(wanted):,} images are missing, the first "
                        f"{missing[0]}", where=_paths.say(files.path))
    return np.array([known[os.fsencode(name)] for name in wanted], np.int64)


def images(files: Files, within: bytes = b"") -> np.ndarray:
    """i64[n]: numbers of the images, sorted by their own names and then by their folders'."""
    found = [number for number, name in enumerate(files.names)
             if name.startswith(within) and name.lower().endswith(IMAGES)
             and not tail(name, 1).startswith(b".")]
    return np.array(sorted(found, key=lambda number: (tail(files.names[number], 1),
                                                      files.names[number])), np.int64)


def grouped(groups: np.ndarray) -> np.ndarray:
    """i64[n]: an order as of `shuffled` that keeps the members of a group together, in order.

    So train[:90%] and train[90%:] share at most one group: photographs of one patient, frames of
    one track. groups: [n].
    """
    _, member_of = np.unique(groups, return_inverse=True)
    place = np.argsort(shuffled(member_of.max() + 1)) if len(groups) else member_of
    return np.argsort(place[member_of], kind="stable")


def lookup(files: Files, chosen: np.ndarray, labels: np.ndarray, *, shuffle: bool = True,
           groups: np.ndarray | None = None) -> Lookup:
    """A split of the files with these numbers i64[n]. labels: i32[n]; multilabel: bool[n,K].

    groups: [n], the group of each example; `grouped` keeps groups together.
    """
    if shuffle:
        order = shuffled(len(chosen)) if groups is None else grouped(groups)
        chosen, labels = chosen[order], labels[order]

    @functools.cache
    def held():
        """Long arrays are an input of the graph, not part of it."""
        tf = tensorflow()
        with tf.init_scope():
            paths = [os.path.join(files.path, files.names[number]) for number in chosen
                     ] if isinstance(files, Folder) else []
            return tf.constant(labels), tf.constant(paths, tf.string)

    def read(index):
        tf = tensorflow()
        all_labels, paths = held()
        label = tf.gather(all_labels, index)
        label = tf.cast(label, tf.float32) if label.dtype == tf.bool else label
        if isinstance(files, Folder):
            return {"image": tf.io.read_file(tf.gather(paths, index)), "label": label}
        data = tf.numpy_function(lambda i: files.read(int(chosen[i])), [index], tf.string)
        return {"image": tf.ensure_shape(data, ()), "label": label}

    kind = np.float32 if labels.dtype == bool else np.int32
    return Lookup(len(chosen), read, lambda index: files.where(int(chosen[index])),
                  lambda: labels.astype(kind), lambda index: files.version(int(chosen[index])),
                  lambda: ([files.names[number] for number in chosen], labels))


def arrays(pixels: np.ndarray, labels: np.ndarray, where: str) -> Lookup:
    """A split held in memory. pixels: u8[n,H,W,C]; labels: i32[n]; where: the file."""
    @functools.cache
    def held():
        tf = tensorflow()
        with tf.init_scope():
            return tf.constant(pixels), tf.constant(labels)

    def read(index):
        tf = tensorflow()
        return {key: tf.gather(value, index)
                for key, value in zip(("image", "label"), held(), strict=True)}

    return Lookup(len(pixels), read, lambda index: f"{where}, image {index}", lambda: labels)
