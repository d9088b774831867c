"""Files of torch.save, read without torch by an unpickler that can only build tensors.

Formats: the zip archive (torch 1.6 and later) and the older stream, as torch/serialization.py
writes them. A pickle may name any Python function; here only the few below are allowed, which
describe arrays. Any other name is an error, and this cannot be turned off.
"""

import dataclasses
import io
import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from imgcls_jax import untrusted
from imgcls_jax.errors import CheckpointError
from imgcls_jax.untrusted import Budget, Refused

MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py, MAGIC_NUMBER
DTYPES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2",
    "BFloat16Storage": ml_dtypes.bfloat16, "LongStorage": "<i8", "IntStorage": "<i4",
    "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
}
ONLY = "only tensors in dicts, lists and tuples are read, and nothing was executed"
INSTEAD = "save its state_dict() alone, or as safetensors, with the program that made the file"
# What torch.save writes in any protocol of pickle: no sets, no instances, no numbers of any length.
OPCODES = frozenset(getattr(pickle, name)[0] for name in (
    "PROTO FRAME STOP MARK EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 APPEND "
    "APPENDS SETITEM SETITEMS NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT "
    "BINSTRING SHORT_BINSTRING BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES BINPUT "
    "LONG_BINPUT MEMOIZE BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID").split())
OBJECT = 64  # bytes in memory that a byte of a pickle, or a value that is visited, may cost
AXES = 32
LEVELS = 16


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

    def array(self, budget: Budget) -> np.ndarray:
        flat = np.frombuffer(self.storage.data, self.storage.dtype)
        count = math.prod(self.shape)
        if not count:
            return np.zeros(self.shape, flat.dtype)
        # as_strided checks no bounds: with it a hostile file could read all of our memory.
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if min(self.offset, *self.strides, *self.shape, 0) < 0 or last >= flat.size:
            raise Refused("a tensor that reaches beyond its storage")
        budget.take(count * flat.itemsize)  # a stride of 0 repeats a number without end
        strides = [s * flat.itemsize for s in self.strides]
        view = np.lib.stride_tricks.as_strided(flat[self.offset:], self.shape, strides)
        return view.copy()  # ascontiguousarray would turn a scalar into an array of one element


def _rebuild_tensor(storage, offset, shape, strides, *_) -> _Tensor:
    sizes = (shape, strides)
    if not isinstance(storage, _Storage) or not all(isinstance(one, tuple | list)
                                                    and len(one) <= AXES for one in sizes):
        raise Refused("a tensor with an invalid storage or shape")
    if not all(type(n) is int for n in (offset, *shape, *strides)):
        raise Refused("a tensor with an invalid storage or shape")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(data, *_) -> _Tensor:
    return data


def _size(values=()) -> tuple:
    if not isinstance(values, tuple | list) or len(values) > AXES:
        raise Refused("a size of too many axes")
    return tuple(values)


class _Reader:
    """A pickle within a file: every byte read counts as what it may become in memory."""

    def __init__(self, file: BinaryIO, size: int, budget: Budget):
        self._file, self._size, self._budget = file, size, budget

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes: memory for more than there are is never asked for."""
        if not 0 <= count <= self.left():
            raise EOFError("it is cut off within its pickle")
        self._budget.take(OBJECT * count)
        return self._file.read(count)

    def left(self) -> int:
        return self._size - self._file.tell()

    def readline(self) -> bytes:
        line = self._file.readline(1 << 10)
        self._budget.take(OBJECT * len(line))
        return line


def _refuse(unpickler):
    raise Refused("an instruction of pickle that torch.save never writes")


class _Unpickler(pickle._Unpickler):
    """Builds containers, numbers, strings and the arrays that `storage` finds bytes for.

    That of Python, whose table of opcodes can be cut down and whose memo is a dict: the fast one
    makes a table as long as the greatest number in the file.
    """

    dispatch = {code: function if code in OPCODES else _refuse  # noqa: RUF012
                for code, function in pickle._Unpickler.dispatch.items()}

    def __init__(self, file: _Reader, storage: Callable[[str, np.dtype, int], _Storage],
                 budget: Budget):
        super().__init__(file, encoding="latin1")
        self._storage, self._budget = storage, budget
        self._known = {
            ("collections", "OrderedDict"): self._ordered,
            ("torch", "Size"): _size,
            ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
            **{("torch", name): np.dtype(dtype) for name, dtype in DTYPES.items()},
        }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            raise Refused(f"the name {module}.{name}"[:200])
        return self._known[module, name]

    def persistent_load(self, words) -> _Storage:
        if not isinstance(words, tuple) or len(words) < 5 or words[0] != "storage":
            raise Refused("a reference to something other than a storage")
        _, dtype, key, _, size = words[:5]
        if not isinstance(dtype, np.dtype) or type(size) is not int or size < 0:
            raise Refused("a storage of unknown type")
        if len(words) > 5 and words[5] is not None:
            raise Refused("a view of a storage")
        return self._storage(_key(key), dtype, size)

    def _ordered(self, pairs=()) -> dict:
        self._budget.take(OBJECT * len(pairs))
        return self._put({}, [item for key, value in pairs for item in (key, value)])

    @staticmethod
    def _put(target: dict, items: list) -> dict:
        """Enters key, value, key, value, ... into a dict."""
        if not isinstance(target, dict):
            raise Refused("something other than a dict with keys")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # The hash of tuples of tuples takes for ever; huge integers may all have one hash.
            if not (isinstance(key, str) or (type(key) is int and abs(key) < 1 << 60)):
                raise Refused("keys that are neither names nor numbers")
            target[key] = value
        return target

    def load_setitem(self):
        value, key = self.stack.pop(), self.stack.pop()
        self._put(self.stack[-1], [key, value])

    def load_setitems(self):
        items = self.pop_mark()
        self._put(self.stack[-1], items)

    def load_reduce(self):
        arguments, function = self.stack.pop(), self.stack[-1]
        if not callable(function) or not isinstance(arguments, tuple):
            raise Refused("a call of something that is no function")
        self.stack[-1] = function(*arguments)

    def load_build(self):
        """An OrderedDict has attributes, such as the versions of modules, which are not needed."""
        self.stack.pop()
        if not isinstance(self.stack[-1], dict):
            raise Refused("an object with a state")

    dispatch |= {pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems,
                 pickle.REDUCE[0]: load_reduce, pickle.BUILD[0]: load_build}


def _key(key) -> str:
    """The name of a storage; what is not a name might be as long as one likes as text."""
    if not isinstance(key, str) and type(key) is not int:
        raise Refused("a storage without a name")
    return str(key)


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name, those of nested dicts too: "model.conv1.weight".

    Raises CheckpointError, and executes nothing of the file, if it holds anything but tensors,
    containers, numbers and strings, is cut off, or would take memory out of proportion to its size.
    """
    found: dict[str, np.ndarray] = {}
    with untrusted.explaining(CheckpointError, "file of torch.save", path, only=ONLY,
                              instead=INSTEAD):
        budget = Budget(path.stat().st_size)
        read_in = _read_zip if zipfile.is_zipfile(path) else _read_stream
        _collect(read_in(path, budget), "", found, 0, budget)
    return found


def _read_zip(path: Path, budget: Budget):
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise Refused("no data.pkl, or several (an archive of TorchScript?)")
        folder = pickles[0].removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in names and untrusted.member(archive, order, budget) != b"little":
            raise Refused("big-endian numbers")
        storages: dict[str, _Storage] = {}

        def storage(key, dtype, size):
            if key not in storages:
                name = f"{folder}data/{key}"
                if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
                    raise Refused("a compressed storage")  # torch never compresses
                storages[key] = _Storage(dtype, size, untrusted.member(archive, name, budget))
                _check_size(storages[key])
            return storages[key]

        data = untrusted.member(archive, pickles[0], budget)
        return _Unpickler(_Reader(io.BytesIO(data), len(data), budget), storage, budget).load()


def _read_stream(path: Path, budget: Budget):
    storages: dict[str, _Storage] = {}

    def storage(key, dtype, size):
        return storages.setdefault(key, _Storage(dtype, size))

    with path.open("rb") as file:
        reader = _Reader(file, path.stat().st_size, budget)

        def load():
            return _Unpickler(reader, storage, budget).load()

        if load() != MAGIC:
            raise ValueError("it does not begin with torch's magic number")
        _protocol, system = load(), load()
        if isinstance(system, Mapping) and system.get("little_endian") is False:
            raise Refused("big-endian numbers")
        content = load()
        for key in load():
            (size,) = struct.unpack("<q", file.read(8))
            one = storages[_key(key)]
            if size != one.size:
                raise ValueError(f"storage {key} has {size} elements, not {one.size}")
            one.data = file.read(min(size * one.dtype.itemsize, reader.left()))
            _check_size(one)
    return content


def _check_size(storage: _Storage):
    if len(storage.data) != storage.size * storage.dtype.itemsize:
        raise EOFError(f"a storage of {storage.size} elements has {len(storage.data)} bytes")


def _collect(value, prefix: str, found: dict[str, np.ndarray], depth: int, budget: Budget):
    """Fills `found`. A container may hold another many times, which may hold another many times."""
    if depth > LEVELS:
        raise Refused("containers nested without end")
    budget.take(4 * OBJECT + len(prefix))
    if isinstance(value, _Tensor):
        found[prefix] = value.array(budget)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _collect(item, f"{prefix}.{key}" if prefix else str(key), found, depth + 1, budget)
    elif isinstance(value, list | tuple):
        budget.take(OBJECT * len(value))
        if any(isinstance(item, _Tensor) for item in value):
            for i, item in enumerate(value):
                _collect(item, f"{prefix}.{i}" if prefix else str(i), found, depth + 1, budget)
