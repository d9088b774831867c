"""HDF5 files of Keras, read with h5py and without Keras: `.weights.h5` of Keras 3, and the older
format, a group for every layer, in which keras-applications publishes its weights.

Keras 3 (keras/src/saving/saving_lib.py): "layers/conv2d_1/vars/0", where conv2d_1 is the second
layer of its class and, from about 3.7 on, the attribute `name` of "vars" is the layer's name.
Older (keras/src/legacy/saving/legacy_h5_format.py): the attribute `layer_names` of the file,
`weight_names` of each layer's group; Keras 1 has other names for a layer's tensors, so their order
counts. Both: the tensors of a layer are in the order of LEAVES (_hdf5.py, which reads the file).
"""

import importlib.util
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from imgcls_jax import untrusted
from imgcls_jax.errors import CheckpointError, EnvironmentFailure
from imgcls_jax.untrusted import Budget, Refused

SIGNATURE = b"\x89HDF\r\n\x1a\n"
READER = Path(__file__).with_name("_hdf5.py")
HEADER = 1 << 16  # bytes of a line before a tensor
# The class of a layer of keras.applications by its name: the first match.
KINDS = ((r"(.*_)?bn", "norm"), (r".*dwconv", "depthwise"), (r"fc\d|predictions", "dense"),
         (r"normalization", "statistics"), (r".*", "conv"))
# The standard deviations of ImageNet, which published EfficientNets store in place of variances;
# the model divides by their roots once more (keras/src/applications/efficientnet.py).
DEVIATIONS = (0.229, 0.224, 0.225)


def is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file as "layer/leaf", those of a class of layers in their order.

    Raises CheckpointError for a file that is damaged, or that refers to numbers elsewhere: only
    links within the file are followed. EnvironmentFailure if h5py is missing.
    """
    if importlib.util.find_spec("h5py") is None:
        raise EnvironmentFailure("Keras files need h5py, which is not installed",
                                 where=str(path), fix="pip install h5py, or install this package "
                                                      "with the extra [keras]")
    with untrusted.explaining(CheckpointError, "Keras file", path,
                              only="only numbers within it are read",
                              instead="save it with model.save_weights of Keras"):
        if not is_hdf5(path):
            raise ValueError("it does not begin as HDF5 does")
        # -P: no folder of this package, nor the current one, may shadow what it imports.
        with subprocess.Popen([sys.executable, "-P", str(READER), str(path)], bufsize=1 << 20,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL,
                              env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}) as reader:
            try:
                return _tensors(reader.stdout, Budget(path.stat().st_size, times=1, floor=0))
            finally:
                reader.kill()


def _tensors(stream, budget: Budget) -> dict[str, np.ndarray]:
    """What _hdf5.py writes."""
    found: dict[str, np.ndarray] = {}
    while True:
        line = stream.readline(HEADER)
        facts = untrusted.from_json(line) if line.endswith(b"\n") else None
        if facts is None:
            raise ValueError("the HDF5 library crashed, or took far too much time or memory")
        if "name" not in facts:
            break
        dtype = np.dtype(facts["dtype"])
        size = math.prod(facts["shape"]) * dtype.itemsize
        budget.take(size)
        found[facts["name"]] = np.frombuffer(stream.read(size), dtype).reshape(facts["shape"])
    if "refused" in facts:
        raise Refused(facts["refused"])
    if "damaged" in facts:
        raise ValueError(facts["damaged"])
    return found


def kind(layer: str) -> str:
    """The class of a layer of keras.applications."""
    return next(kind for pattern, kind in KINDS if re.fullmatch(pattern, layer))


def in_order(tensors: Mapping[str, np.ndarray], order: Sequence[str]) -> Mapping[str, np.ndarray]:
    """The tensors with layers renamed as in `order`, if the file names some of them differently.

    order: all layers that have tensors, as in `model.layers` of Keras. The n-th layer of a class is
    then the n-th of that class here: Keras itself reads older files by order alone, and files of
    Keras 3 up to about 3.6 hold no names. If a class has another number of layers, all names stay.
    """
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, value in tensors.items():
        layer, _, leaf = name.rpartition("/")
        layers.setdefault(layer, {})[leaf] = value
    if set(order) <= set(layers):
        return tensors
    theirs: dict[str, list[str]] = {}
    for layer, leaves in layers.items():
        theirs.setdefault(_kind_of(leaves), []).append(layer)
    ours: dict[str, list[str]] = {}
    for layer in order:
        ours.setdefault(kind(layer), []).append(layer)
    if {k: len(v) for k, v in ours.items()} != {k: len(v) for k, v in theirs.items()}:
        return tensors
    return {f"{new}/{leaf}": value for k in ours
            for new, old in zip(ours[k], theirs[k], strict=True)
            for leaf, value in layers[old].items()}


def _kind_of(leaves: Mapping[str, np.ndarray]) -> str:
    if "gamma" in leaves:
        return "norm"
    if "count" in leaves:
        return "statistics"
    shape = leaves["kernel"].shape if "kernel" in leaves else ()
    if len(shape) == 4:
        return "depthwise" if shape[-1] == 1 and "bias" not in leaves else "conv"
    return "dense" if len(shape) == 2 else ""


def normalisation(tensors: Mapping[str, np.ndarray]) -> tuple[tuple, tuple] | None:
    """(mean, std) for images in 0 to 1, from the first layer of a Keras EfficientNet."""
    for name, count in tensors.items():
        layer, _, leaf = name.rpartition("/")
        if leaf == "count" and not count.shape:
            mean, variance = (np.ravel(tensors[f"{layer}/{leaf}"]) for leaf in ("mean", "variance"))
            published = variance.shape == (3,) and np.allclose(variance, DEVIATIONS, atol=1e-4)
            std = variance if published else np.sqrt(variance)
            return tuple(map(float, mean)), tuple(map(float, std))
    return None
