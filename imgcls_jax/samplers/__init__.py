"""Samplers: `(labels i32[N] or f32[N,K], classes, *, ...) -> f64[N]`, how often each example comes
in an epoch."""

from imgcls_jax.registry import Registry

SAMPLERS = Registry("sampler", __name__)
