"""f32 arithmetic that every compiler rounds in the same way."""

import jax
import jax.numpy as jnp


def product(factor, whole):
    """factor * whole, rounded once, for whole numbers of up to 12 bits.

    XLA may fuse a product and a sum into one operation that does not round in between. So the
    factor is split into two parts of 12 bits: their products are exact, and fusing them with their
    sum changes nothing.
    """
    factor = jnp.asarray(factor, jnp.float32)
    upper = jax.lax.bitcast_convert_type(
        jax.lax.bitcast_convert_type(factor, jnp.uint32) & jnp.uint32(0xFFFFF000), jnp.float32)
    return upper * whole + (factor - upper) * whole
