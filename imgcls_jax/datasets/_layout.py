"""A folder on the disk and one within an archive, listed in the same way."""

import functools
import io
import os
from collections.abc import Iterator

import numpy as np

from imgcls_jax import untrusted
from imgcls_jax.data.decoding import pillow
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.datasets import _archive, _paths
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup

FOLDER, FILE, OTHER = "folder", "file", "other"


@functools.cache
def extensions() -> tuple[bytes, ...]:
    """Files with these endings are taken as images, unopened."""
    return tuple(map(os.fsencode, pillow.suffixes()))


def is_image(file) -> bool:
    """By its content. file: a path or a file object."""
    from PIL import Image

    try:
        with Image.open(file, formats=pillow.FORMATS):
            return True
    except Exception:
        return False


class Disk:
    """A folder. Paths are bytes, relative to it; b"" is the folder itself."""

    def __init__(self, root: bytes):
        self.root = root

    def children(self, path: bytes) -> Iterator[tuple[bytes, str]]:
        """(name, FOLDER, FILE or OTHER); symbolic links are followed, a broken one is OTHER. Only
        links are looked up: most file systems list the kind with the name."""
        try:
            with os.scandir(self._place(path)) as entries:
                for entry in entries:
                    yield entry.name, _kind(entry)
        except OSError as error:
            raise DataError(f"the folder cannot be read: {error.strerror}", where=self.say(path),
                            fix="repair it or remove it") from error

    def identity(self, path: bytes):
        """The same for two paths to one folder."""
        status = os.stat(self._place(path))
        return status.st_dev, status.st_ino

    def is_image(self, path: bytes) -> bool:
        return is_image(self._place(path))

    def text(self, path: bytes) -> bytes | None:
        """What is in a file, if it exists."""
        try:
            return untrusted.read(self._place(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"the file cannot be read: {error.strerror}", where=self.say(path),
                            fix="repair it or remove it") from error

    def say(self, path: bytes) -> str:
        return _paths.say(self._place(path))

    def below(self, name: bytes) -> "Disk":
        return Disk(self._place(name))

    def lookup(self, paths: list[bytes], labels: np.ndarray) -> Lookup:
        """A split of these files, with labels i32[n]."""
        @functools.cache
        def path_tensor():
            tf = tensorflow()
            with tf.init_scope():  # a million paths are an input of the graph, not part of it
                return tf.constant([self._place(path) for path in paths], tf.string)

        def read(index):
            tf = tensorflow()
            return {"image": tf.io.read_file(tf.gather(path_tensor(), index)),
                    "label": tf.gather(labels, index)}

        return Lookup(len(paths), read, lambda index: self.say(paths[index]), lambda: labels,
                      lambda index: _paths.version(self._place(paths[index])),
                      lambda: (list(map(_paths.composed, paths)), labels))

    def _place(self, path: bytes) -> bytes:
        return os.path.join(self.root, path) if path else self.root


def _kind(entry: os.DirEntry) -> str:
    try:
        return FOLDER if entry.is_dir() else FILE if entry.is_file() else OTHER
    except OSError:  # a link to itself
        return OTHER


class Packed:
    """The same for a folder within an archive, named by its path with a slash at its end."""

    def __init__(self, archive: _archive.Archive, top: bytes = b""):
        self.archive, self.top = archive, top

    @functools.cached_property
    def _numbers(self) -> dict[bytes, int]:
        return {name: number for number, name in enumerate(self.archive.names)}

    @functools.cached_property
    def _tree(self) -> dict[bytes, dict[bytes, str]]:
        """Folder -> its children."""
        tree = {b"": {}}

        def folder(path):
            if path not in tree:
                tree[path] = {}
                above, _, name = path.rpartition(b"/")
                folder(above)[name] = FOLDER
            return tree[path]

        for path in sorted(self.archive.folders):
            folder(path)
        for path in self.archive.names:
            above, _, name = path.rpartition(b"/")
            folder(above).setdefault(name, FILE)
        return tree

    def children(self, path: bytes) -> Iterator[tuple[bytes, str]]:
        yield from self._tree.get((self.top + path).rstrip(b"/"), {}).items()

    def identity(self, path: bytes):
        return path

    def is_image(self, path: bytes) -> bool:
        return is_image(io.BytesIO(self.archive.read(self._numbers[self.top + path])))

    def text(self, path: bytes) -> bytes | None:
        number = self._numbers.get(self.top + path)
        return None if number is None else self.archive.read(number)

    def say(self, path: bytes) -> str:
        inside = self.top + path
        return _paths.say(self.archive.path + (b": " + inside if inside else b""))

    def below(self, name: bytes) -> "Packed":
        inner = Packed(self.archive, self.top + name + b"/")
        inner.__dict__.update(_numbers=self._numbers, _tree=self._tree)
        return inner

    def lookup(self, paths: list[bytes], labels: np.ndarray) -> Lookup:
        numbers = np.array([self._numbers[self.top + path] for path in paths], np.int64)
        return _archive.lookup(self.archive, numbers, labels)
