"""A folder of images: DIR/train|val|test/CLASS/*, or DIR/CLASS/* with a split drawn by a seed."""

import functools
import hashlib
import os
from pathlib import Path

import numpy as np

from imgcls_jax.datasets import DATASETS, fault
from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.types import Lookup, Source

SPLITS = {b"train": "train", b"validation": "val", b"val": "val", b"test": "test"}
EXTENSIONS = (b".jpg", b".jpeg", b".png", b".gif", b".bmp", b".webp", b".tif", b".tiff", b".ppm")
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
CLUTTER = (b"thumbs.db", b"desktop.ini")
LAYOUT = "DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg, or DIR/CLASS/*.jpg"

Classes = dict[bytes, list[bytes]]  # class -> paths of its images relative to DIR, sorted


@DATASETS.register()
def folder(*, dir: str, val_fraction: float = 0.2, seed: int = 0, channels: int = 3) -> Source:
    """A class per folder, sorted by name or in the order of DIR/classes.txt; `val` may also be
    called `validation`.

    Without a split level, val_fraction of each class becomes `val`, as a function of the seed and
    the file names; Source.files says which. Images may lie deeper in a class's folder. What they
    are is decided by their content. Raises DataError for a layout that is none of these, an empty
    class, a class that train lacks, and a file that is no image.
    """
    root = os.fsencode(os.path.expanduser(dir))
    if not 0 <= val_fraction < 1:
        raise ConfigError(f"val_fraction={val_fraction}", where="config.data.val_fraction",
                          fix="use a share of at least 0 and below 1, such as 0.2")
    if not os.path.isdir(root):
        raise DataError("there is no such folder", where=dir, fix="set config.data.dir to the data")
    named = {split: name for name, split in SPLITS.items()
             if _has_folders(os.path.join(root, name))}
    if named:
        splits = {split: _scan(root, name) for split, name in named.items()}
    else:
        splits = _draw(_scan(root, b""), val_fraction, seed)
    _check(splits, root)
    classes = _order(splits["train"], Path(os.fsdecode(root)))
    files = {split: [(path, label) for label, name in enumerate(classes)
                     for path in found.get(name, ())] for split, found in splits.items()}

    def open_split(name: str) -> Lookup:
        paths = [os.path.join(root, path) for path, _ in files[name]]
        labels = np.array([label for _, label in files[name]], np.int32)

        @functools.cache
        def path_tensor():
            import tensorflow as tf

            with tf.init_scope():  # a million paths are an input of the graph, no part of it
                return tf.constant(paths, tf.string)

        def read(index):
            import tensorflow as tf

            return {"image": tf.io.read_file(tf.gather(path_tensor(), index)),
                    "label": tf.gather(labels, index)}

        return Lookup(len(paths), read, lambda index: _say(paths[index]), lambda: labels)

    drawn = {split: tuple(_say(path) for path, _ in found) for split, found in files.items()}
    return Source(name="folder", classes=tuple(map(_say, classes)),
                  sizes={split: len(found) for split, found in files.items()}, open=open_split,
                  channels=channels, files=None if named else drawn)


def _has_folders(path: bytes) -> bool:
    return os.path.isdir(path) and any(entry.is_dir() for entry in os.scandir(path))


def _scan(root: bytes, split: bytes) -> Classes:
    """The images of every class folder below root/split. A folder met twice is read once."""
    top = os.path.join(root, split)
    seen = {_identity(top)}
    found = {}
    for name in sorted(os.listdir(top)):
        path = os.path.join(top, name)
        if name.lower().endswith(EXTENSIONS) and os.path.isfile(path):
            fault(DataError("an image that lies in no class folder", where=_say(path),
                            fix=f"lay the images out as {LAYOUT}"))
        if os.path.isdir(path) and not name.startswith(b".") and _identity(path) not in seen:
            found[name] = sorted(os.path.relpath(image, root) for image in _images(path, seen))
    return found


def _images(folder: bytes, seen: set):
    """Paths of the images in a folder and those below it; symbolic links may form a loop."""
    if _identity(folder) in seen:
        return
    seen.add(_identity(folder))
    for entry in os.scandir(folder):
        if entry.name.startswith(b".") or entry.name.lower() in CLUTTER:
            continue
        if entry.is_dir():
            yield from _images(entry.path, seen)
        elif entry.is_file() and (entry.name.lower().endswith(EXTENSIONS)
                                  or _is_image(entry.path)):
            yield entry.path
        else:
            fault(DataError("a file that is no image of a supported format",
                            where=_say(entry.path),
                            fix=f"take it out, or convert it to one of {', '.join(FORMATS)}"))


def _identity(path: bytes) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _is_image(path: bytes) -> bool:
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS):
            return True
    except Exception:
        return False


def _draw(classes: Classes, fraction: float, seed: int) -> dict[str, Classes]:
    """train and val by the hash of each path, whatever order the disk lists them in."""
    def place(path: bytes) -> bytes:
        return hashlib.sha256(b"%d:%s" % (seed, path)).digest()

    splits = {"train": {}, "val": {}}
    for name, paths in classes.items():
        shuffled = sorted(paths, key=place)
        held_out = min(max(round(len(paths) * fraction), 1), len(paths) - 1) if fraction else 0
        splits["train"][name] = sorted(shuffled[held_out:])
        splits["val"][name] = sorted(shuffled[:held_out])
    return splits


def _check(splits: dict[str, Classes], root: bytes):
    train = splits.get("train")
    if not train:
        found = sorted(map(_say, os.listdir(root)))
        raise DataError(f"no class folders for training; found {found[:8]}", where=_say(root),
                        fix=f"lay the images out as {LAYOUT}")
    for name, paths in train.items():
        if not paths:
            fault(DataError(f"class {_say(name)!r} has no images", where=_say(root),
                            fix="put images into its folder, or remove the folder"))
    for split, found in splits.items():
        for name, paths in found.items():
            if paths and name not in train:
                fault(DataError(f"class {_say(name)!r} is in {split} and not in train",
                                where=_say(os.path.join(root, os.path.dirname(paths[0]))),
                                fix="add it to train, or remove it here"))


def _order(train: Classes, root: Path) -> list[bytes]:
    listed = root / "classes.txt"
    if not listed.exists():
        return sorted(train)
    names = [line.strip() for line in listed.read_bytes().splitlines() if line.strip()]
    if sorted(names) != sorted(train):
        differing = sorted(_say(name) for name in set(names) ^ set(train))
        fault(DataError(f"classes.txt and the folders of train differ: {differing[:8]}",
                        where=str(listed), fix="list every folder once, one name a line"))
        return sorted(train)
    return names


def _say(path: bytes) -> str:
    """Printable in any terminal and in JSON, whatever bytes the name consists of."""
    return path.decode("utf-8", "backslashreplace")
