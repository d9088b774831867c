"""The binary files of CIFAR: a byte or two of labels, then 3 x 32 x 32 pixels, without a header.

The Python version of the files is pickled: reading it would run whatever code it holds.
"""

from pathlib import Path

import numpy as np

from imgcls_jax.datasets import _files, _paths, _published
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup, Source

PIXELS = 3 * 32 * 32


def source(name: str, *, data_dir: str, channels: int, folder: str, archive: str,
           parts: dict[str, tuple[str, ...]], label_bytes: int) -> Source:
    """parts: the files of each split. The last byte of the label bytes is the class."""
    def files(root: Path, split: str) -> Lookup:
        found = _files.find(root, folder, archive, itself=True)
        rows = [_rows(found, part, label_bytes) for part in parts[split]]
        rows = np.concatenate(rows)
        pixels = rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return _files.arrays(np.ascontiguousarray(pixels),
                             rows[:, label_bytes - 1].astype(np.int32),
                             f"{_paths.say(found.path)}, {split}")

    return _published.source(name, classes=_published.names(name), data_dir=data_dir, files=files,
                             sizes={"train": 50_000, "test": 10_000}, tfds=name, channels=channels,
                             layout=f"{folder}/*.bin or {archive} (the binary version, not the "
                                    "Python one)", image_size=(32, 32))


def _rows(files: _files.Files, name: str, label_bytes: int) -> np.ndarray:
    """u8[n, labels and pixels]."""
    number = _files.named(files, name)
    data = np.frombuffer(files.read(number), np.uint8)
    if len(data) % (label_bytes + PIXELS):
        raise DataError(f"the file has {len(data):,} bytes, not a multiple of the example size "
                        f"{label_bytes + PIXELS:,}", where=files.where(number),
                        fix="copy the file again")
    return data.reshape(-1, label_bytes + PIXELS)
