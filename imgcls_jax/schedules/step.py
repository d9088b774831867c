"""Lowers the learning rate at given times."""

import optax

from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Positive
from imgcls_jax.schedules import SCHEDULES


@SCHEDULES.register()
def step(steps: int, *, boundaries: tuple, factor: Positive = 0.1) -> optax.Schedule:
    """Multiplies by `factor` at each boundary, a duration counted from the end of the warm-up.

    As torch's MultiStepLR; a milestone m of timm's is a boundary of m - 1 epochs.
    """
    late = [boundary for boundary in boundaries if boundary >= steps]
    if late:
        raise ConfigError(f"a boundary after {late[0]} steps is beyond a schedule of {steps} steps",
                          where="config.schedule.boundaries",
                          fix="train longer, or use boundaries before the end")
    return optax.piecewise_constant_schedule(1.0, {int(b): factor for b in boundaries})
