"""Pytrees by path: "stage1_block0/conv1/kernel". Imports nothing of ours."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np


def name(path) -> str:
    """A key path of jax.tree_util -> "a/b/0/c"."""
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def flatten(tree: Any) -> dict[str, Any]:
    """The leaves by path, in the tree's own order. None is not a leaf."""
    return {name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def unflatten(leaves: Mapping[str, Any], like: Any) -> Any:
    """The leaves of `flatten` in the structure of `like`; KeyError if one is missing."""
    return map_with_path(lambda path, _: leaves[path], like)


def map_with_path(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """The tree of function(path, leaf)."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: function(name(path), leaf), tree)


def match(pattern: str, tree: Any) -> Any:
    """The tree of whether the whole path of a leaf matches the regex `pattern`."""
    return map_with_path(lambda path, _: re.fullmatch(pattern, path) is not None, tree)


def count(tree: Any) -> int:
    """Number of elements."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def size_bytes(tree: Any) -> int:
    """Bytes of all leaves."""
    return sum(int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize
               for leaf in jax.tree.leaves(tree))


@dataclasses.dataclass(frozen=True)
class Difference:
    """What differs between two trees of arrays; false if nothing does."""

    only_wanted: tuple[str, ...]
    only_found: tuple[str, ...]
    differ: tuple[str, ...]  # "path: wanted f32[3,4], found f32[3,5]"

    def __bool__(self) -> bool:
        return bool(self.only_wanted or self.only_found or self.differ)

    def __str__(self) -> str:
        kinds = (("missing", self.only_wanted), ("not wanted", self.only_found),
                 ("of another shape or type", self.differ))
        return "\n".join(f"{len(rows)} {kind}: {'; '.join(rows[:3])}"
                         + (f"; and {len(rows) - 3} more" if len(rows) > 3 else "")
                         for kind, rows in kinds if rows)


def diff(wanted: Any, found: Any) -> Difference:
    """Compares paths, shapes and dtypes of two trees of arrays or of their shapes."""
    a, b = flatten(wanted), flatten(found)
    differ = [f"{path}: wanted {say(a[path])}, found {say(b[path])}"
              for path in a if path in b and say(a[path]) != say(b[path])]
    return Difference(tuple(p for p in a if p not in b), tuple(p for p in b if p not in a),
                      tuple(differ))


def say(leaf) -> str:
    """"float32[3,4]"."""
    return f"{np.dtype(leaf.dtype).name}[{','.join(map(str, leaf.shape))}]"
