"""The tensors of a model under the names and in the axes of another codebase."""

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
    """Writes `path`; what is read back must be the variables, bit for bit.

    layout: a publisher of such files that the model knows, as "torchvision", "timm" or
    "transformers". channels: of the images.
    """
    known = [name for name, other in spec.layouts.items() if other.format == "torch"]
    if layout not in known:
        raise ConfigError(f"{spec.name} has no layout {layout!r}", where="--layout",
                          fix=near(layout, known) if known else
                          "this model is known to no other codebase")
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
        raise CheckpointError(f"what was written is not what was read back: {difference}",
                              where=str(path), fix="this is a fault of the layout: report it")
