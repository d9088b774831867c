"""Host transforms, of one example, in TensorFlow: `(*, ...) -> (example, seed) -> example`.

An example is a dict with `image` (u8[H,W,C], or the encoded bytes until a transform decodes them),
`label`, and the number `channels`. `seed` is an i32[2] tensor that is a function of
(run seed, epoch, example, place in the list): only tf.random.stateless_* may draw from it.
Transforms are traced without AutoGraph: use tf.cond, not `if`, on a tensor's value.
A transform that gives all images one size declares it as its attribute `size`, (H, W).
"""

from imgcls_jax.registry import Registry

TRANSFORMS = Registry("transform", __name__)
