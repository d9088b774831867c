"""ReLU whose backward pass uses its output, not its input."""

import jax
import jax.numpy as jnp


@jax.custom_jvp
def relu(x):
    """max(x, 0). jax.nn.relu also keeps x for the backward pass: if x were not stored otherwise,
    such as the sum of a residual block fused into a convolution, that is a second array of that
    size to write and read."""
    # Without the barrier XLA turns max(x, 0) > 0 back into x > 0, and keeps x.
    return jax.lax.optimization_barrier(jnp.maximum(x, 0))


@relu.defjvp
def _(primals, tangents):
    y = relu(*primals)
    return y, jnp.where(y > 0, tangents[0], 0)
