"""HDF5 files of Keras, read with h5py and without Keras: `.weights.h5` of Keras 3, and the older
format, a group for every layer, in which keras-applications publishes its weights.

Keras 3 (keras/src/saving/saving_lib.py): "layers/conv2d_1/vars/0", where conv2d_1 is the second
layer of its class and, from about 3.7 on, the attribute `name` of "vars" is the layer's name.
Older (keras/src/legacy/saving/legacy_h5_format.py): the attribute `layer_names` of the file,
`weight_names` of each layer's group; Keras 1 has other names for a layer's tensors, so their order
counts. Both: the tensors of a layer are in the order of LEAVES.
"""

import itertools
import mmap
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from imgcls_jax import untrusted
from imgcls_jax.errors import CheckpointError, EnvironmentFailure
from imgcls_jax.untrusted import Budget, Refused

HEAP = b"GCOL\1"
SIGNATURE = b"\x89HDF\r\n\x1a\n"
LEAVES = {1: ("kernel",), 2: ("kernel", "bias"), 3: ("mean", "variance", "count"),
          4: ("gamma", "beta", "moving_mean", "moving_variance")}  # by how many a layer has
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
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise EnvironmentFailure("Keras files need h5py, which is not installed",
                                 where=str(path), fix="pip install h5py, or install this package "
                                                      "with the extra [keras]") from error
    with untrusted.explaining(CheckpointError, "Keras file", path,
                              only="only numbers within it are read",
                              instead="save it with model.save_weights of Keras"):
        if not is_hdf5(path):
            raise ValueError("it does not begin as HDF5 does")
        _check_heaps(path)
        with h5py.File(path, "r") as file:
            return _tensors(file, Budget(path.stat().st_size, times=1, floor=0))


def _check_heaps(path: Path):
    """Refused where the library would not come to the end of a heap of texts.

    HDF5 1.14 goes through the objects of a heap by their sizes, and stays at a free one of size 0
    (H5HG__cache_heap_deserialize). Format: "III.E. Disk Format: Level 1E - Global Heap".
    """
    budget = Budget(path.stat().st_size)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[10 if data[8] > 1 else 14] != 8:
            raise Refused("sizes of other than 8 bytes")
        begin = data.find(HEAP)
        while begin >= 0:
            place, end = begin + 16, begin + _number(data, begin + 8, 8)
            while place + 16 <= min(end, len(data)):
                budget.take(16)
                size = _number(data, place + 8, 8)
                size = 16 + -(-size // 8) * 8 if _number(data, place, 2) else size
                if not 16 <= size <= end - place:
                    raise Refused("a heap of texts that is damaged")
                place += size
            begin = data.find(HEAP, begin + 4)


def _number(data, place: int, size: int) -> int:
    return int.from_bytes(data[place:place + size], "little")


def _tensors(file, budget: Budget) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for layer, datasets in (_old(file) if _is_old(file) else _new(file)):
        leaves = LEAVES.get(len(datasets)) or map(str, range(len(datasets)))
        for leaf, dataset in zip(leaves, datasets, strict=True):
            name = f"{layer}/{leaf}"
            if name in found:
                raise Refused(f"two layers called {layer}")
            budget.take(_check(dataset))  # the same tensor may stand under many names
            found[name] = np.asarray(dataset[()])
    return found


def _is_old(file) -> bool:
    """Whether it has the older format; files of whole models have the weights in a group."""
    return "model_weights" in file or any(key.startswith("layer_names") for key in file.attrs)


def _new(file) -> Iterator[tuple[str, list]]:
    """(layer, its datasets), of Keras 3."""
    layers = _child(file, "layers")

    def counted(key):
        number = re.search(r"_(\d+)$", key)
        return (key[:number.start()], int(number[1])) if number else (key, 0)

    for key in sorted(layers, key=counted):
        group = _child(layers, key)
        if "vars" in group:
            group = _child(group, "vars")
            yield (str(group.attrs.get("name", key)),
                   [_child(group, name) for name in sorted(group, key=int)])


def _old(file) -> Iterator[tuple[str, list]]:
    if "model_weights" in file:
        file = _child(file, "model_weights")
    for layer in _strings(file, "layer_names"):
        group = _child(file, layer)
        yield layer, [_child(group, name) for name in _strings(group, "weight_names")]


def _strings(group, key: str) -> list[str]:
    """A list among the attributes; a long one is continued in KEY0, KEY1, ..."""
    values = list(group.attrs.get(key, ()))
    for number in itertools.count():
        if f"{key}{number}" not in group.attrs:
            return [v.decode() if isinstance(v, bytes) else str(v) for v in values]
        values += list(group.attrs[f"{key}{number}"])


def _child(group, path: str):
    """What a path within the group leads to, following only links within the file."""
    import h5py

    for part in path.split("/"):
        link = group.get(part, getlink=True) if part.strip(".") else None
        if link is None:
            raise KeyError(f"{path!r} is missing in {group.name!r}")
        if not isinstance(link, h5py.HardLink):
            raise Refused(f"a link in place of {group.name.rstrip('/')}/{part}")
        group = group[part]
    return group


def _check(dataset) -> int:
    """Bytes of a dataset, which must be plain numbers in this file."""
    import h5py

    name = dataset.name
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiu":
        raise Refused(f"something other than numbers as {name}")
    if dataset.external or dataset.is_virtual:
        raise Refused(f"a reference to another file as {name}")
    if dataset.id.get_storage_size() != dataset.nbytes:  # Keras does not compress
        raise Refused(f"fewer bytes than numbers as {name}")
    return dataset.nbytes


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
