"""The tensors of a model as an .npz that google-research's codebases load."""

from pathlib import Path

from imgcls_jax.exporters import EXPORTERS, _layouts
from imgcls_jax.pretrained import files


@EXPORTERS.register()
def npz(apply, variables, spec, path: Path, *, layout: str = "npz", channels: int = 3) -> None:
    """layout: "npz", the published names, which both vision_transformer and big_vision read, or
    "big_vision", the names of its modules, which hold all that a model of big_vision may have."""
    _layouts.export(variables, spec, path, layout, ("npz",), channels, files.write_npz)
