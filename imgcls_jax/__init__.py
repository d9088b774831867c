"""imgcls_jax: image classification in JAX and Flax."""

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imgcls_jax.models import MODELS as MODELS
    from imgcls_jax.predict import Model as Model
    from imgcls_jax.predict import load as load

__version__ = "0.1.0"
__all__ = ["MODELS", "Model", "load"]

# Imported when first used: `import imgcls_jax` alone stays instant.
_PLACES = {"MODELS": "models", "Model": "predict", "load": "predict"}


def __getattr__(name: str):
    if name in _PLACES:
        value = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
        globals()[name] = value
        return value
    if name in _modules():
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _modules() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__)
            if not module.name.startswith("_")]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_modules()})
