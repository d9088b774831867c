"""A file of published weights -> the variables of a model, or a list of what keeps it from it."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from imgcls_jax import tree
from imgcls_jax.errors import CheckpointError
from imgcls_jax.pretrained import adapt, files, names
from imgcls_jax.types import Layout, ModelSpec


def variables(path: Path, spec: ModelSpec, fresh: Mapping, *, reset: Sequence[str] = ()) -> dict:
    """The variables of `fresh` with the file's values in their place.

    fresh: {"params": ..., ...}, of the wanted shapes; leaves whose path begins with one of `reset`
    keep its values. A table of positions and a stem are fitted to another size, and it is said.
    Raises CheckpointError with what is only in the file, only in the model, or of another shape.
    """
    tensors = files.read(path)
    wanted = tree.flatten(fresh)
    kept = {p for p in wanted if p.split("/", 1)[1].startswith(tuple(reset))} if reset else set()
    publisher, layout = recognise(tensors, wanted, spec, path)
    found, difference = names.to_variables(tensors, wanted, layout)
    problems = []
    for leaf_path, leaf in wanted.items():
        if leaf_path in kept or leaf_path not in found:
            continue
        fitted = adapt.fit(leaf_path, found[leaf_path], leaf.shape)
        if fitted is None:
            problems += [line for line in difference.differ if line.startswith(f"{leaf_path} (")]
        elif fitted is not found[leaf_path]:
            logging.warning("%s: %s fitted to %s", leaf_path, list(found[leaf_path].shape),
                            list(leaf.shape))
            found[leaf_path] = fitted
    unfit = tree.Difference(
        tuple(line for line in difference.only_wanted if line.split(" (")[0] not in kept),
        difference.only_found, tuple(problems))
    if unfit:
        only_head = not unfit.only_found and all(
            f"/{spec.head}/" in line for line in (*unfit.only_wanted, *unfit.differ))
        raise CheckpointError(
            f"the weights ({publisher} layout) do not fit {spec.name}:\n{unfit}", where=str(path),
            fix=f"start the head anew, as {spec.head!r} in config.init.reset" if only_head else
            "take the file of this very model, or name what shall start anew in config.init.reset")
    return tree.unflatten({p: leaf if p in kept else found[p].astype(leaf.dtype)
                           for p, leaf in wanted.items()}, fresh)


def recognise(tensors: Mapping[str, np.ndarray], wanted: Mapping, spec: ModelSpec,
              path: Path) -> tuple[str, Layout]:
    """(publisher, layout) of the model whose names the file has most of."""
    def hits(layout):
        mine = [name for p in wanted for name in names.theirs(p, layout)]
        return sum(name in tensors for name in mine)

    scored = {publisher: hits(layout) for publisher, layout in spec.layouts.items()}
    best = max(scored, key=scored.get, default=None)
    if not best or not scored[best]:
        some = ", ".join(sorted(tensors)[:3])
        raise CheckpointError(f"none of its {len(tensors)} tensors is one of {spec.name}: {some}",
                              where=str(path),
                              fix="take the file of this very model; known layouts are "
                                  f"{', '.join(spec.layouts) or 'none'}")
    return best, spec.layouts[best]
