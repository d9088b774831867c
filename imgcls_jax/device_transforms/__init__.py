"""Device transforms, of a whole batch, in JAX:
`(*, ...) -> (key, images f[B,H,W,C], targets f32[B,K]) -> (images, targets)`.

Images are normalised, and stay of their dtype. A transform that declares `levels = True` is given
u8[B,H,W,C], and gives that: such ones come first, before normalisation. One that changes the size
of images says so, `size = (height, width)`. The batch is split over devices: an example may use
itself and its neighbor.
"""

from imgcls_jax.registry import Registry

DEVICE_TRANSFORMS = Registry("device_transform", __name__)
