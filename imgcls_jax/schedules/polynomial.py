"""A power of the remaining time."""

import optax

from imgcls_jax.registry import Positive, Share
from imgcls_jax.schedules import SCHEDULES


@SCHEDULES.register()
def polynomial(steps: int, *, power: Positive = 1.0, floor: Share = 0.0) -> optax.Schedule:
    """From 1 to `floor` as (1 - t / steps) ^ power, as torch's PolynomialLR."""
    return optax.polynomial_schedule(1.0, floor, power, steps)


@SCHEDULES.register()
def linear(steps: int, *, floor: Share = 0.0) -> optax.Schedule:
    """A straight line from 1 to `floor`."""
    return optax.linear_schedule(1.0, floor, steps)
