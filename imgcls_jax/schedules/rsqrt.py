"""The reciprocal square root: a schedule that does not depend on when training ends."""

import optax

from imgcls_jax.schedules import SCHEDULES


@SCHEDULES.register()
def rsqrt(steps: int, *, timescale: int, shift: int = 0) -> optax.Schedule:
    """1 / sqrt(1 + (t + shift) / timescale), both durations, as big_vision's (arXiv 2106.04560,
    section 3.6); to be used with a cooldown at the end. With a shift it begins below 1."""
    return lambda count: (1.0 + (count + shift) / timescale) ** -0.5
