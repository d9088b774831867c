"""Datasets: `(*, ...) -> types.Source`. TensorFlow is imported inside functions only."""

from imgcls_jax.registry import Registry

DATASETS = Registry("dataset", __name__)
