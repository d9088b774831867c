"""Files of torch.save, read without torch by an unpickler that can only build tensors.

Formats: the zip archive (torch 1.6 and later) and the older stream, as torch/serialization.py
writes them. A pickle may name any Python function; here only the few below are allowed, which
describe arrays. Any other name is an error, and this cannot be turned off.
"""

import collections
import dataclasses
import io
import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from imgcls_jax.errors import CheckpointError

MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py, MAGIC_NUMBER
DTYPES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2",
    "BFloat16Storage": ml_dtypes.bfloat16, "LongStorage": "<i8", "IntStorage": "<i4",
    "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}
ASIDE = "only tensors in dicts, lists and tuples are read"
FIX = "save its state_dict() alone, or as safetensors, with the program that made the file"


class Refused(Exception):
    """The file holds something other than tensors."""


@dataclasses.dataclass
class _Storage:
    """Bytes of one storage; in an archive known at once, in a stream only after the pickle."""

    dtype: np.dtype
    size: int  # elements
    data: bytes | None = None


@dataclasses.dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int  # elements
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # elements

    def array(self) -> np.ndarray:
        flat = np.frombuffer(self.storage.data, self.storage.dtype)
        if not math.prod(self.shape):
            return np.zeros(self.shape, flat.dtype)
        # as_strided checks no bounds: with it a hostile file could read all of our memory.
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if min(self.offset, *self.strides, *self.shape, 0) < 0 or last >= flat.size:
            raise Refused("a tensor that reaches beyond its storage")
        strides = [s * flat.itemsize for s in self.strides]
        view = np.lib.stride_tricks.as_strided(flat[self.offset:], self.shape, strides)
        return view.copy()  # ascontiguousarray would turn a scalar into an array of one element


def _rebuild_tensor(storage, offset, shape, strides, *_) -> _Tensor:
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or not all(type(n) is int for n in numbers):
        raise Refused("a tensor with an invalid storage or shape")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(data, *_) -> _Tensor:
    return data


class _Unpickler(pickle.Unpickler):
    """Builds containers, numbers, strings and the arrays that `storage` finds bytes for."""

    def __init__(self, file, storage: Callable[[str, np.dtype, int], _Storage]):
        super().__init__(file, encoding="latin1")
        self._storage = storage

    ALLOWED = {  # noqa: RUF012
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch", "Size"): tuple,
        ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        **{("torch", name): np.dtype(dtype) for name, dtype in DTYPES.items()},
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise Refused(f"the name {module}.{name}")
        return self.ALLOWED[module, name]

    def persistent_load(self, words) -> _Storage:
        if not isinstance(words, tuple) or len(words) < 5 or words[0] != "storage":
            raise Refused("a reference to something other than a storage")
        _, dtype, key, _, size = words[:5]
        if not isinstance(dtype, np.dtype) or type(size) is not int or size < 0:
            raise Refused("a storage of unknown type")
        if len(words) > 5 and words[5] is not None:
            raise Refused("a view of a storage")
        return self._storage(str(key), dtype, size)


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name, those of nested dicts too: "model.conv1.weight".

    Raises CheckpointError, and executes nothing of the file, if it holds anything but tensors,
    containers, numbers and strings, or is cut off.
    """
    try:
        content = _read_zip(path) if zipfile.is_zipfile(path) else _read_stream(path)
        found: dict[str, np.ndarray] = {}
        _collect(content, "", found, 0)
    except Refused as error:
        raise CheckpointError(f"the file holds {error}; {ASIDE}, and nothing was executed",
                              where=str(path), fix=FIX) from error
    except (pickle.UnpicklingError, zipfile.BadZipFile, struct.error, EOFError, KeyError,
            ValueError, TypeError, IndexError, AttributeError, OverflowError, RecursionError,
            UnicodeDecodeError, NotImplementedError, ImportError, MemoryError) as error:
        raise CheckpointError(f"the file is not a whole torch.save file: {error}", where=str(path),
                              fix="download it again and compare its hash") from error
    return found


def _read_zip(path: Path):
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise Refused("no data.pkl, or several (an archive of TorchScript?)")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise Refused("big-endian numbers")
        storages: dict[str, _Storage] = {}

        def storage(key, dtype, size):
            if key not in storages:
                entry = archive.getinfo(f"{folder}data/{key}")
                if entry.compress_type != zipfile.ZIP_STORED:  # torch never compresses
                    raise Refused("a compressed storage")
                storages[key] = _Storage(dtype, size, archive.read(entry))
                _check_size(storages[key])
            return storages[key]

        return _Unpickler(io.BytesIO(archive.read(pickles[0])), storage).load()


def _read_stream(path: Path):
    storages: dict[str, _Storage] = {}

    def storage(key, dtype, size):
        return storages.setdefault(key, _Storage(dtype, size))

    with path.open("rb") as file:
        def load():
            return _Unpickler(file, storage).load()

        if load() != MAGIC:
            raise ValueError("it does not begin with torch's magic number")
        _protocol, system = load(), load()
        if isinstance(system, Mapping) and system.get("little_endian") is False:
            raise Refused("big-endian numbers")
        content = load()
        for key in load():
            (size,) = struct.unpack("<q", file.read(8))
            one = storages[str(key)]
            if size != one.size:
                raise ValueError(f"storage {key} has {size} elements, not {one.size}")
            one.data = file.read(size * one.dtype.itemsize)
            _check_size(one)
    return content


def _check_size(storage: _Storage):
    if len(storage.data) != storage.size * storage.dtype.itemsize:
        raise EOFError(f"a storage of {storage.size} elements has {len(storage.data)} bytes")


def _collect(value, prefix: str, found: dict[str, np.ndarray], depth: int):
    if depth > 16:
        raise Refused("containers nested without end")
    if isinstance(value, _Tensor):
        found[prefix] = value.array()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _collect(item, f"{prefix}.{key}" if prefix else str(key), found, depth + 1)
    elif isinstance(value, list | tuple) and any(isinstance(item, _Tensor) for item in value):
        for i, item in enumerate(value):
            _collect(item, f"{prefix}.{i}" if prefix else str(i), found, depth + 1)
