"""The tensors of a model with the names and axes of a codebase in torch."""

from pathlib import Path

from imgcls_jax.exporters import EXPORTERS, _layouts
from imgcls_jax.pretrained import files


@EXPORTERS.register()
def safetensors(apply, variables, spec, path: Path, *, layout: str = "torchvision",
                channels: int = 3) -> None:
    """layout: "torchvision", "timm", "transformers" or another that the model knows."""
    _layouts.export(variables, spec, path, layout, ("torch",), channels,
                    lambda path, tensors: files.write_safetensors(
                        path, tensors, {"format": "pt", "model": spec.name}))
