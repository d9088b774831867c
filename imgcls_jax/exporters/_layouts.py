"""Files of tensors under the names and axes of another codebase."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from imgcls_jax import tree
from imgcls_jax.errors import CheckpointError, ConfigError
from imgcls_jax.pretrained import files, names
from imgcls_jax.registry import near


def export(variables, spec, path: Path, layout: str, formats: tuple[str, ...], channels: int,
           write: Callable):
    """Writes `path`, reads it back and verifies that it holds the variables, bit for bit.

    layout: a publisher whose names the model knows, among the layouts of `formats`; channels: of
    the images; write: (path, {name: array}). ConfigError for another layout, or a model without.
    """
    known = [name for name, other in spec.layouts.items() if other.format in formats]
    if layout not in known:
        raise ConfigError(f"{spec.name} has no layout {layout!r} in this format",
                          where="--layout", fix=near(layout, known) if known else
                          "this model has none: choose another --format")
    leaves = {name: np.asarray(value) for name, value in tree.flatten(variables).items()}
    try:
        tensors = names.to_tensors(leaves, spec.layouts[layout], channels=channels)
    except KeyError as error:
        raise ConfigError(f"the {layout} layout of {spec.name} has no tensor for {error.args[0]}",
                          where="the model's arguments",
                          fix="export a model with the published architecture") from error
    write(path, tensors)
    found, difference = names.to_variables(files.read(path), leaves, spec.layouts[layout])
    same = not difference and all(np.array_equal(found[p], leaves[p], equal_nan=True)
                                  for p in leaves)
    if not same:
        raise CheckpointError(f"the file differs from the variables: {difference}",
                              where=str(path), fix="this is an error in the layout: report it")
