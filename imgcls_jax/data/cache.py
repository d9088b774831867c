"""A cache of encoded images that are slow to read, in memory or on a fast disk."""

import json
import os
import re
from pathlib import Path

from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.types import Lookup, Shards

WHERE = "config.data.cache"


def cached(split: Lookup | Shards, place: str, name: str) -> Lookup:
    """The same split, each image of which is read only once. place: "memory" or a folder.

    A folder may serve several processes and later runs. DataError if it holds other data,
    ConfigError for a split of record files or of images that are not encoded.
    """
    if not isinstance(split, Lookup) or split.labels is None:
        raise ConfigError(f"data.cache needs a dataset with random access; {name} is read "
                          "sequentially", where=WHERE,
                          fix="leave it out; copy record files to a fast disk instead")
    store = _Memory() if place == "memory" else _Folder(Path(place).expanduser(), name, split)
    labels = split.labels()

    def read(index):
        tf = tensorflow()

        def first_time():
            image = split.read(index)["image"]
            if image.dtype != tf.string:
                raise ConfigError(f"the images of {name} are in memory already", where=WHERE,
                                  fix="leave it out")
            with tf.control_dependencies([tf.numpy_function(store.put, [index, image], [])]):
                return tf.identity(image)

        held = tf.ensure_shape(tf.numpy_function(store.has, [index], tf.bool), ())
        image = tf.cond(held, lambda: store.get(tf, index), first_time)
        return {"image": tf.ensure_shape(image, ()), "label": tf.gather(labels, index)}

    return Lookup(split.size, read, split.where, split.labels)


class _Memory:
    def __init__(self):
        self._images: dict[int, bytes] = {}

    def has(self, index):
        return int(index) in self._images

    def put(self, index, image):
        self._images[int(index)] = image

    def get(self, tf, index):
        return tf.numpy_function(lambda i: self._images[int(i)], [index], tf.string)


class _Folder:
    """A file per image, written completely or not at all, so that several may write at once."""

    def __init__(self, folder: Path, name: str, split: Lookup):
        self._folder = folder / re.sub(r"\W+", "-", name)
        self._known = set()
        some = [0, split.size // 2, split.size - 1]
        facts = {"size": split.size, "some": [split.where(i) for i in some]}
        written = self._folder / "cache.json"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not written.exists():
                _write(written, json.dumps(facts).encode())
            found = json.loads(written.read_text())
        except (OSError, ValueError) as error:
            raise DataError(f"the cache cannot be used: {error}", where=str(self._folder),
                            fix="make it writable, or name another folder in config.data.cache"
                            ) from error
        if found != facts:
            raise DataError("the cache folder holds other data", where=str(self._folder),
                            fix="remove it, or name another folder in config.data.cache")

    def _path(self, index: int) -> Path:
        return self._folder / f"{index // 1000}" / f"{index}"

    def has(self, index):
        index = int(index)
        if index not in self._known and self._path(index).exists():
            self._known.add(index)
        return index in self._known

    def put(self, index, image):
        path = self._path(int(index))
        path.parent.mkdir(exist_ok=True)
        _write(path, image)

    def get(self, tf, index):
        number = tf.strings.as_string
        return tf.io.read_file(tf.strings.join(
            [os.fsencode(self._folder) + b"/", number(index // 1000), "/", number(index)]))


def _write(path: Path, data: bytes):
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
