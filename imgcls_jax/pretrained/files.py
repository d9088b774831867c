"""A file of weights -> tensors by name, in any format, which its content decides, not its name."""

import io
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from imgcls_jax import untrusted
from imgcls_jax.errors import CheckpointError
from imgcls_jax.pretrained import keras_h5, pth
from imgcls_jax.untrusted import Budget, Refused

FORMATS = ".safetensors, .pth (of torch.save), .npz or .h5 (of Keras)"
# Keys that training scripts wrap a state_dict in, and the prefix of DistributedDataParallel; the
# first one found counts: a moving average comes first, because it was evaluated.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "module")
ONLY = "only arrays of numbers are read"
SAFETENSORS = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
    "BF16": ml_dtypes.bfloat16, "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2, "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file by name. CheckpointError if it is missing, damaged or hostile,
    EnvironmentFailure if it needs a package that is not installed."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError("there is no such file of weights", where=str(path),
                              fix=f"give a file: {FORMATS}")
    with path.open("rb") as file:
        start = file.read(16)
    if zipfile.is_zipfile(path):
        tensors = _read_npz(path) if _is_npz(path) else pth.read(path)
    elif start[8:9] == b"{" or path.suffix == ".safetensors":
        tensors = _read_safetensors(path)
    elif keras_h5.is_hdf5(path) or path.suffix == ".h5":
        tensors = keras_h5.read(path)
    else:
        tensors = pth.read(path)
    tensors = unwrap(tensors)
    if not tensors:
        raise CheckpointError("the file holds no tensors", where=str(path),
                              fix=f"give a file of weights: {FORMATS}")
    return tensors


def unwrap(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without what wraps a state_dict: {"model.conv1.weight": ...} -> {"conv1.weight": ...}."""
    for wrapper in WRAPPERS:
        inside = {name.removeprefix(f"{wrapper}."): value for name, value in tensors.items()
                  if name.startswith(f"{wrapper}.")}
        if inside:
            return unwrap(inside)
    return {re.sub(r"^_orig_mod\.", "", name): value for name, value in tensors.items()}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    import safetensors

    found = {}
    with untrusted.explaining(CheckpointError, "safetensors file", path, only=ONLY,
                              instead="save it with numbers of 8 to 64 bits"):
        with safetensors.safe_open(path, "numpy"):  # refuses a header that does not fit the file
            pass
        data = np.memmap(path, np.uint8, "r")
        begin = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = untrusted.from_json(data[8:begin].tobytes())
        header.pop("__metadata__", None)
        for name, facts in header.items():
            if facts["dtype"] not in SAFETENSORS:
                raise Refused(f"numbers of the type {facts['dtype']}")
            first, last = (begin + offset for offset in facts["data_offsets"])
            found[name] = np.frombuffer(data[first:last].tobytes(), SAFETENSORS[facts["dtype"]]
                                        ).reshape(facts["shape"])
    return found


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return all(name.endswith(".npy") for name in archive.namelist())
    except Exception:  # damaged: what reads it says how
        return False


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with untrusted.explaining(CheckpointError, "file of numpy arrays", path, only=ONLY,
                              instead="save arrays of numbers, with np.savez"):
        budget = Budget(path.stat().st_size)
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): _array(untrusted.member(archive, name, budget))
                    for name in archive.namelist()}


def _array(data: bytes) -> np.ndarray:
    """The array of a .npy file; its shape is believed only if the numbers are there."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version > (3, 0):
        raise ValueError(f"unknown version {version}")
    read = (np.lib.format.read_array_header_1_0 if version == (1, 0)
            else np.lib.format.read_array_header_2_0)
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise Refused("Python objects, which are never loaded")
    if dtype == "V2":  # so numpy stores bfloat16, which it does not know
        dtype = np.dtype(ml_dtypes.bfloat16)
    elif dtype.kind not in "biuf":
        raise Refused(f"numbers of the type {dtype}"[:80])
    if math.prod(shape) * dtype.itemsize != len(data) - file.tell() or min(shape, default=0) < 0:
        raise ValueError(f"an array has {len(data) - file.tell():,} bytes, and another shape")
    flat = np.frombuffer(data, dtype, offset=file.tell())
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]):
    """Writes the file completely or not at all."""
    from safetensors.numpy import save_file

    temporary = Path(path).with_name(f".{Path(path).name}.tmp")
    save_file(dict(tensors), temporary, metadata=dict(metadata))
    temporary.replace(path)


def write_npz(path: Path, tensors: Mapping[str, np.ndarray]):
    """Writes the file completely or not at all."""
    temporary = Path(path).with_name(f".{Path(path).name}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, **tensors)
    temporary.replace(path)
