"""Host transforms, of one example, in TensorFlow: `(*, ...) -> (example, seed) -> example`.

An example is a dict with `image` (u8[H,W,C], or the encoded bytes until something decodes them),
`label`, and the number `channels`. `seed` is an i32[2] tensor that is a function of
(run seed, epoch, example, place in the list): only tf.random.stateless_* may draw from it.
It is traced as it is written, without AutoGraph: tf.cond, not `if`, asks what a tensor holds.
A transform that gives every image one size says so in its attribute `size`, (H, W).
"""

from imgcls_jax.registry import Registry

TRANSFORMS = Registry("transform", __name__)
