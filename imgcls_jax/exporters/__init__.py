"""Exporters: `(apply, variables, spec, path, *, ...) -> None`; each verifies what it wrote.

apply: module.apply. spec: types.ModelSpec.
"""

from imgcls_jax.registry import Registry

EXPORTERS = Registry("exporter", __name__)
