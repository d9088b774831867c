"""A file of weights -> tensors by name, in any format, which its content decides, not its name."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from imgcls_jax.errors import CheckpointError
from imgcls_jax.pretrained import keras_h5, pth

FORMATS = ".safetensors, .pth (of torch.save), .npz or .h5 (of Keras)"
# Keys that training scripts wrap a state_dict in, and the prefix of DistributedDataParallel; the
# first one found counts: a moving average comes first, because it was evaluated.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "module")


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
        with zipfile.ZipFile(path) as archive:
            arrays = all(name.endswith(".npy") for name in archive.namelist())
        tensors = _read_npz(path) if arrays else pth.read(path)
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
    from safetensors.flax import load_file

    try:
        return {name: np.asarray(value) for name, value in load_file(path).items()}
    except (safetensors.SafetensorError, ValueError, OSError, MemoryError) as error:
        raise CheckpointError(f"the file is not a whole safetensors file: {error}", where=str(path),
                              fix="download it again and compare its hash") from error


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError, KeyError) as error:
        what = ("it holds Python objects, which are never loaded" if "allow_pickle" in str(error)
                else str(error))
        raise CheckpointError(f"the file is not a whole file of numpy arrays: {what}",
                              where=str(path),
                              fix="download it again and compare its hash") from error


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]):
    """Writes the file completely or not at all."""
    from safetensors.numpy import save_file

    temporary = Path(path).with_name(f".{Path(path).name}.tmp")
    save_file(dict(tensors), temporary, metadata=dict(metadata))
    temporary.replace(path)
