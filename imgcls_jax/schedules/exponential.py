"""Exponential decay."""

import optax

from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Positive
from imgcls_jax.schedules import SCHEDULES


@SCHEDULES.register()
def exponential(steps: int, *, every: int, factor: Positive,
                staircase: bool = False) -> optax.Schedule:
    """factor ^ (t / every), `every` a duration; staircase: the exponent is rounded down.

    Keras' ExponentialDecay, which EfficientNet uses with a staircase of 0.97 every 2.4 epochs. With
    a staircase it is timm's StepLRScheduler and torch's StepLR; with every=dict(epochs=1) it is
    torch's ExponentialLR.
    """
    if every >= steps:
        raise ConfigError(f"a fall every {every} steps does not fit a schedule of {steps} steps",
                          where="config.schedule.every", fix="train longer, or lower it")
    return optax.exponential_decay(1.0, every, factor, staircase=staircase)
