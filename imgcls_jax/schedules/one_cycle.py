"""One-cycle: one rise and one fall of the learning rate."""

import math

import jax.numpy as jnp
import optax

from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import NotNegative
from imgcls_jax.schedules import SCHEDULES


@SCHEDULES.register()
def one_cycle(steps: int, *, rise: float = 0.3, start: NotNegative = 0.04,
              end: NotNegative = 4e-6) -> optax.Schedule:
    """From `start` to 1 in a share `rise` of the steps, then to `end`, by half a cosine each, as
    torch's OneCycleLR with two phases (arXiv 1708.07120).

    torch counts from the first step to the last, so 1 is reached at rise * steps - 1 and `end` at
    steps - 1; its div_factor is 1 / start, its final_div_factor start / end.
    """
    top = rise * steps - 1
    if not 0 < top < steps - 1:
        raise ConfigError(f"rise={rise} does not fit a schedule of {steps} steps",
                          where="config.schedule.rise",
                          fix="use a share of more than one step and less than all of them")

    def between(low, high, share):
        return high + (low - high) / 2 * (1 + jnp.cos(math.pi * share))

    def shape(count):
        falling = jnp.minimum((count - top) / (steps - 1 - top), 1.0)
        return jnp.where(count <= top, between(start, 1.0, count / top),
                         between(1.0, end, falling))

    return shape
