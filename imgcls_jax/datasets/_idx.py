"""The gzipped idx files of MNIST and of the datasets like it (yann.lecun.com/exdb/mnist)."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from imgcls_jax.datasets import _files, _published
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup, Source

BEGIN = {"train": "train", "test": "t10k"}


def source(name: str, *, data_dir: str, channels: int, homes: tuple[str, ...]) -> Source:
    """homes: folders below data_dir where the files may lie; their names are the same for all."""
    def files(root: Path, split: str) -> Lookup:
        folder = next((root / home for home in homes if (root / home).is_dir()), root)
        arrays = []
        for what, dimensions in (("images", 3), ("labels", 1)):
            file = f"{BEGIN[split]}-{what}-idx{dimensions}-ubyte"
            arrays.append(_read(_files.place(folder, f"{file}.gz", file), dimensions))
        images, labels = arrays
        if len(images) != len(labels):
            raise DataError(f"{split} has {len(images):,} images but {len(labels):,} labels",
                            where=str(folder), fix="copy both files again")
        return _files.arrays(images[..., None], labels.astype(np.int32), f"{folder}, {split}")

    return _published.source(
        name, classes=_published.names(name), sizes={"train": 60_000, "test": 10_000},
        data_dir=data_dir, files=files, tfds=name, channels=channels, image_size=(28, 28),
        layout="train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz "
               "and t10k-labels-idx1-ubyte.gz")


def _read(path: Path, dimensions: int) -> np.ndarray:
    """u8 array. The header: 0, 0, 8 for u8, number of dimensions; then each size, big-endian."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"the file cannot be read: {error}", where=str(path),
                        fix="copy the file again") from error
    head = 4 + 4 * dimensions
    shape = np.frombuffer(data[4:head], ">i4") if len(data) >= head else ()
    if data[:4] != bytes((0, 0, 8, dimensions)) or len(data) - head != np.prod(shape, dtype=int):
        raise DataError(f"the file is not a complete idx file of bytes, {dimensions} dimensions",
                        where=str(path), fix="copy the file again")
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)
