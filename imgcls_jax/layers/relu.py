"""ReLU whose backward pass looks at what it gave, not at what it was given."""

import jax
import jax.numpy as jnp


@jax.custom_jvp
def relu(x):
    """max(x, 0). jax.nn.relu keeps x for the backward pass as well: where x is no array that is
    there anyway, as the sum of a residual block computed within a convolution, that is a second
    array of that size, written and read."""
    # Without the barrier XLA turns max(x, 0) > 0 back into x > 0, and keeps x.
    return jax.lax.optimization_barrier(jnp.maximum(x, 0))


@relu.defjvp
def _(primals, tangents):
    y = relu(*primals)
    return y, jnp.where(y > 0, tangents[0], 0)
