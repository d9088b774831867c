"""Host arrays -> global arrays on the mesh, ahead of the step that uses them."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from imgcls_jax import tree
from imgcls_jax.errors import ConfigError
from imgcls_jax.parallel import waits
from imgcls_jax.parallel.mesh import BATCH
from imgcls_jax.types import Array


def place(state: Any, shardings: Any) -> Any:
    """Host arrays, complete and equal on every process, -> global arrays."""
    return jax.tree.map(lambda leaf, where: jax.make_array_from_callback(
        leaf.shape, where, lambda index: np.asarray(leaf)[index]), state, shardings)


def rows(batch_size: int, mesh: Mesh) -> slice:
    """The rows of a global batch that this process feeds; they are contiguous."""
    where = NamedSharding(mesh, BATCH).addressable_devices_indices_map((batch_size,))
    starts, stops = zip(*(index[0].indices(batch_size)[:2] for index in where.values() if index),
                        strict=True)
    return slice(min(starts), max(stops))


def to_device(batch: Mapping[str, Array], batch_size: int, mesh: Mesh) -> dict[str, Array]:
    """This process's rows -> the global batch on the mesh. `id` stays on the host."""
    where = NamedSharding(mesh, BATCH)
    return {key: jax.make_array_from_process_local_data(where, np.asarray(value),
                                                        (batch_size, *value.shape[1:]))
            for key, value in batch.items() if key != "id"}


def check_arrays(batch: Mapping[str, Array], wanted: Mapping[str, Array], where: str):
    """ConfigError if the transforms return other images than declared."""
    for name, leaf in wanted.items():
        if tree.say(batch[name]) != tree.say(leaf):
            raise ConfigError(f"{name} of a batch is {tree.say(batch[name])}, not "
                              f"{tree.say(leaf)}", where=where,
                              fix="make the transform return uint8, and declare its size as "
                                  "transform.size")


def prefetch(batches: Iterator, put: Callable, depth: int = 2) -> Iterator[tuple]:
    """(host batch, device batch) pairs; up to `depth` transfers run ahead of the consumer.

    The first pair is returned as soon as it is ready, without waiting for the others.
    """
    queue: deque[tuple] = deque()
    ahead = 1
    for batch in batches:
        queue.append((batch, put(batch)))
        waits.fed()
        if len(queue) >= ahead:
            yield queue.popleft()
            ahead = depth + 1
    yield from queue
