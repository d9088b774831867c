"""f32 arithmetic that a compiler cannot round otherwise."""

import jax
import jax.numpy as jnp


def product(factor, whole):
    """factor * whole, rounded once, for whole numbers of up to 12 bits.

    XLA may contract a product and the sum it enters into one operation that does not round between.
    So the factor comes in two parts, of 12 bits each: their products are exact, and to contract
    them with their own sum changes nothing.
    """
    factor = jnp.asarray(factor, jnp.float32)
    upper = jax.lax.bitcast_convert_type(
        jax.lax.bitcast_convert_type(factor, jnp.uint32) & jnp.uint32(0xFFFFF000), jnp.float32)
    return upper * whole + (factor - upper) * whole
