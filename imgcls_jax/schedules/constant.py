"""A constant learning rate."""

import optax

from imgcls_jax.schedules import SCHEDULES


@SCHEDULES.register()
def constant(steps: int) -> optax.Schedule:
    """Constant: 1 throughout."""
    return optax.constant_schedule(1.0)
