"""Device transforms, of a whole batch, in JAX:
`(*, ...) -> (key, images f[B,H,W,C], targets f32[B,K]) -> (images, targets)`."""

from imgcls_jax.registry import Registry

DEVICE_TRANSFORMS = Registry("device_transform", __name__)
