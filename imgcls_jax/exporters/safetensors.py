"""The tensors of a model with the names and axes of another codebase."""

from pathlib import Path

import numpy as np

from imgcls_jax import tree
from imgcls_jax.errors import CheckpointError, ConfigError
from imgcls_jax.exporters import EXPORTERS
from imgcls_jax.pretrained import files, names
from imgcls_jax.registry import near


@EXPORTERS.register()
def safetensors(apply, variables, spec, path: Path, *, layout: str = "torchvision",
                channels: int = 3) -> None:
    """Writes `path`, reads it back and verifies that it holds the variables, bit for bit.

    layout: a publisher whose names the model knows, such as "torchvision", "timm" or
    "transformers". channels: of the images.
    """
    known = [name for name, other in spec.layouts.items() if other.format == "torch"]
    if layout not in known:
        raise ConfigError(f"{spec.name} has no layout {layout!r}", where="--layout",
                          fix=near(layout, known) if known else
                          "this model has no layouts: it cannot be exported")
    leaves = {name: np.asarray(value) for name, value in tree.flatten(variables).items()}
    try:
        tensors = names.to_tensors(leaves, spec.layouts[layout], channels=channels)
    except KeyError as error:
        raise ConfigError(f"the {layout} layout of {spec.name} has no tensor for {error.args[0]}",
                          where="the model's arguments",
                          fix="export a model with the published architecture") from error
    files.write_safetensors(path, tensors, {"format": "pt", "model": spec.name})
    found, difference = names.to_variables(files.read(path), leaves, spec.layouts[layout])
    same = not difference and all(np.array_equal(found[p], leaves[p], equal_nan=True)
                                  for p in leaves)
    if not same:
        raise CheckpointError(f"the file differs from the variables: {difference}",
                              where=str(path), fix="this is an error in the layout: report it")
