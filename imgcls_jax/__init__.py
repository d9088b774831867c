"""imgcls_jax: image classification in JAX and Flax."""

__version__ = "0.1.0"
__all__ = ["MODELS", "load"]


def __getattr__(name: str):
    # Imported when first used: `import imgcls_jax` alone stays instant.
    if name == "MODELS":
        from imgcls_jax.models import MODELS
        return MODELS
    if name == "load":
        from imgcls_jax.predict import load
        return load
    raise AttributeError(f"module 'imgcls_jax' has no attribute {name!r}")
