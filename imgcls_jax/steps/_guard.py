"""An update that is applied only if loss and gradients are finite."""

import jax
import jax.numpy as jnp
from jax import lax


def if_finite(finite, update, state, *rest):
    """update(state, *rest) if `finite` bool[], else the state as it was.

    On a CPU only one of the two is computed: for a choice leaf by leaf, XLA would first copy the
    whole state, because the new moments would overwrite what the new parameters still read.
    """
    def chosen(state, *rest):
        return jax.tree.map(lambda new, old: jnp.where(finite, new, old), update(state, *rest),
                            state)

    def branched(state, *rest):
        return lax.cond(finite, update, lambda state, *_: state, state, *rest)

    return lax.platform_dependent(state, *rest, cpu=branched, default=chosen)
