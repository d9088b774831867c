"""Device transforms, of a whole batch, in JAX:
`(*, ...) -> (key, images f[B,H,W,C], targets f32[B,K]) -> (images, targets)`.

Images are normalised, and keep their dtype. A transform that declares `levels = True` takes and
returns u8[B,H,W,C]; such transforms come first, before normalisation. One that changes the size of
images declares `size = (height, width)`. The batch is split over devices: an example may use only
itself and its neighbor.
"""

from imgcls_jax.registry import Registry

DEVICE_TRANSFORMS = Registry("device_transform", __name__)
