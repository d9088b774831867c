"""A program: writes the tensors of a Keras file to its standard output, for keras_h5.py.

It runs in a process of its own, because the HDF5 library is written in C and trusts what it reads:
a damaged file can make it crash, take gigabytes or never end. It imports nothing of this package.
Before each tensor comes a line of JSON with "name", "dtype" and "shape"; the last line has "end",
"refused" or "damaged", each with the reason.
"""

import contextlib
import itertools
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator

LEAVES = {1: ("kernel",), 2: ("kernel", "bias"), 3: ("mean", "variance", "count"),
          4: ("gamma", "beta", "moving_mean", "moving_variance")}  # by how many a layer has
SECONDS, A_SECOND = 2, 20e6  # of the processor for any file, and bytes for each further one
MEMORY = 1 << 28  # bytes for any file, and twice its size


class Refused(Exception):
    """The file holds something that is not read."""


def main(path: str):
    out = sys.stdout.buffer

    def say(**facts):
        out.write(json.dumps(facts).encode() + b"\n")

    try:
        import h5py
        import numpy as np

        size = os.path.getsize(path)
        limit(size)
        with h5py.File(path, "r") as file:
            for name, dataset in tensors(file, size):
                say(name=name, dtype=dataset.dtype.str, shape=dataset.shape)
                out.write(np.ascontiguousarray(dataset[()]).data)
        say(end=True)
    except Refused as error:
        say(refused=str(error))
    except Exception as error:
        say(damaged=str(error) or type(error).__name__)
    out.flush()


def limit(size: int):
    """The system ends this process where it takes far more than a file of `size` bytes needs."""
    # Windows has no such limits, and a system may refuse one; the file is then read without.
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        seconds = math.ceil(time.process_time()) + SECONDS + int(size / A_SECOND)
        for kind, most in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0),
                           (resource.RLIMIT_DATA, MEMORY + 2 * size)):
            _, hard = resource.getrlimit(kind)
            if hard == resource.RLIM_INFINITY or most < hard:
                resource.setrlimit(kind, (most, hard))


def tensors(file, left: int) -> Iterator:
    """(layer/leaf, dataset) in the order of the file; of at most `left` bytes."""
    seen = set()
    for layer, datasets in (of_old(file) if is_old(file) else of_new(file)):
        leaves = LEAVES.get(len(datasets)) or map(str, range(len(datasets)))
        for leaf, dataset in zip(leaves, datasets, strict=True):
            name = f"{layer}/{leaf}"
            if name in seen:
                raise Refused(f"two layers called {layer}")
            seen.add(name)
            left -= checked(dataset)
            if left < 0:  # the same tensor may stand under many names
                raise Refused("far more numbers than it has bytes")
            yield name, dataset


def is_old(file) -> bool:
    """Whether it has the older format; files of whole models have the weights in a group."""
    return "model_weights" in file or any(key.startswith("layer_names") for key in file.attrs)


def of_new(file) -> Iterator[tuple[str, list]]:
    """(layer, its datasets), of Keras 3."""
    layers = child(file, "layers")

    def counted(key):
        number = re.search(r"_(\d+)$", key)
        return (key[:number.start()], int(number[1])) if number else (key, 0)

    for key in sorted(layers, key=counted):
        group = child(layers, key)
        if "vars" in group:
            group = child(group, "vars")
            yield (str(group.attrs.get("name", key)),
                   [child(group, name) for name in sorted(group, key=int)])


def of_old(file) -> Iterator[tuple[str, list]]:
    if "model_weights" in file:
        file = child(file, "model_weights")
    for layer in strings(file, "layer_names"):
        group = child(file, layer)
        yield layer, [child(group, name) for name in strings(group, "weight_names")]


def strings(group, key: str) -> list[str]:
    """A list among the attributes; a long one is continued in KEY0, KEY1, ..."""
    values = list(group.attrs.get(key, ()))
    for number in itertools.count():
        if f"{key}{number}" not in group.attrs:
            return [v.decode() if isinstance(v, bytes) else str(v) for v in values]
        values += list(group.attrs[f"{key}{number}"])


def child(group, path: str):
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


def checked(dataset) -> int:
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


if __name__ == "__main__":
    main(sys.argv[1])
