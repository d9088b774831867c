"""A cache of encoded images that are slow to read, in memory or on a fast disk."""

import hashlib
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np

from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.types import Lookup, Shards

WHERE = "config.data.cache"
DIGEST = 16  # bytes of BLAKE2b before the image of a cache file


def cached(split: Lookup | Shards, place: str, name: str) -> Lookup:
    """The same split, each image of which is read only once. place: "memory" or a folder.

    An image is kept under its path, size and times of change (Lookup.version), so that a file
    that was replaced, moved or mended is read again; labels are those of the split. A folder may
    serve several datasets, processes and later runs. ConfigError for a split of record files or of
    images that are not encoded; DataError for a folder that cannot be written.
    """
    if not isinstance(split, Lookup) or split.labels is None:
        raise ConfigError(f"data.cache needs a dataset with random access; {name} is read "
                          "sequentially", where=WHERE,
                          fix="leave it out; copy record files to a fast disk instead")
    if split.version is None:
        raise ConfigError(f"the images of {name} are in memory already", where=WHERE,
                          fix="leave it out")
    store = _Memory() if place == "memory" else _Folder(Path(place).expanduser())
    version, labels = split.version, split.labels()

    def key(index) -> bytes:
        """b"" for a file that is not there: reading it says so."""
        try:
            said = version(int(index))
        except OSError:
            return b""
        return hashlib.blake2b(said.encode("utf-8", "surrogateescape"),
                               digest_size=20).hexdigest().encode()

    def get(index):
        known = key(index)
        return known, store.get(known.decode())

    def put(index, known, image):
        # Eager TensorFlow gives an array that holds a pointer to the bytes.
        known, image = (np.asarray(value, object).item() for value in (known, image))
        if known and known == key(index):  # else the file was changed while it was read
            store.put(known.decode(), image)

    def read(index):
        tf = tensorflow()

        def first_time():
            image = split.read(index)["image"]
            with tf.control_dependencies([tf.numpy_function(put, [index, known, image], [])]):
                return tf.identity(image)

        known, held = (tf.ensure_shape(found, ()) for found in
                       tf.numpy_function(get, [index], (tf.string, tf.string)))
        image = tf.cond(tf.equal(tf.strings.length(held), 0), first_time, lambda: held)
        return {"image": tf.ensure_shape(image, ()), "label": tf.gather(labels, index)}

    return Lookup(split.size, read, split.where, split.labels, split.version,
                  split.listed)


class _Memory:
    def __init__(self):
        self._images: dict[str, bytes] = {}

    def get(self, key: str) -> bytes:
        return self._images.get(key, b"")

    def put(self, key: str, image: bytes):
        self._images[key] = image


class _Folder:
    """A file per image: its digest, then its bytes.

    It appears complete or not at all, so that several processes may write at once. One that was
    damaged since is not served: the image is read, and the file written, again.
    """

    def __init__(self, folder: Path):
        self._folder, self._full = folder, False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise DataError(f"the cache cannot be used: {error.strerror}", where=str(folder),
                            fix="make it writable, or name another folder in config.data.cache"
                            ) from error

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / key[2:]

    def get(self, key: str) -> bytes:
        """b"" where there is none, or a damaged one."""
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return b""
        image = data[DIGEST:]
        return image if _digest(image) == data[:DIGEST] else b""

    def put(self, key: str, image: bytes):
        path = self._path(key)
        try:
            path.parent.mkdir(exist_ok=True)
            _write(path, _digest(image) + image)
        except OSError as error:  # the run goes on without
            if not self._full:
                warnings.warn(f"nothing more is cached in {self._folder}: {error.strerror}",
                              stacklevel=2)
            self._full = True


def _digest(image: bytes) -> bytes:
    return hashlib.blake2b(image, digest_size=DIGEST).digest()


def _write(path: Path, data: bytes):
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".unfinished", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.replace(file.name, path)
        except OSError:
            os.unlink(file.name)
            raise
