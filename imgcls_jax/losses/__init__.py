"""Losses: `(logits f32[B,K], targets f32[B,K], *, ...) -> f32[B]`, no reduction."""

from imgcls_jax.registry import Registry

LOSSES = Registry("loss", __name__)
