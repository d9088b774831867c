"""How the state is sharded on the mesh: by rules over shapes and names, outside the models."""

import re
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imgcls_jax import tree
from imgcls_jax.errors import ConfigError

SMALL = 4096  # elements: below this a leaf is cheaper to replicate than to gather


def state_shardings(state: Any, mesh: Mesh, rules: tuple = ()) -> Any:
    """A NamedSharding per leaf: its largest divisible dimension goes on `fsdp`.

    rules: ((regex of the path, (axis or None, ...)), ...); the first one that matches the whole
    path takes precedence over the shape. Works on any tree of leaves with a shape.
    """
    unused = {pattern for pattern, _ in rules}

    def sharding(path: str, leaf) -> NamedSharding:
        for pattern, axes in rules:
            if re.fullmatch(pattern, path) and len(axes) == len(leaf.shape):
                unused.discard(pattern)
                return NamedSharding(mesh, PartitionSpec(*axes))
        size = mesh.shape["fsdp"]
        spec: list[str | None] = [None] * len(leaf.shape)
        fits = [i for i, n in enumerate(leaf.shape) if n % size == 0]
        if size > 1 and fits and np.prod(leaf.shape) >= SMALL:
            spec[max(fits, key=lambda i: leaf.shape[i])] = "fsdp"
        return NamedSharding(mesh, PartitionSpec(*spec))

    shardings = tree.map_with_path(sharding, state)
    if unused:
        raise ConfigError(f"rule {min(unused)!r} matches no leaf with as many dimensions as axes",
                          where="config.mesh.rules",
                          fix=f"use paths such as {', '.join(list(tree.flatten(state))[:3])}")
    return shardings


def abstract(state: Any, shardings: Any) -> Any:
    """Shapes and dtypes of `state` with the shardings: what restore and compile take."""
    return jax.tree.map(lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype,
                                                                 sharding=where), state, shardings)
