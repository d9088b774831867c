"""An equal factor in equal times."""

import optax

from imgcls_jax.errors import ConfigError
from imgcls_jax.schedules import SCHEDULES


@SCHEDULES.register()
def exponential(steps: int, *, every: int, factor: float,
                staircase: bool = False) -> optax.Schedule:
    """factor ^ (t / every), `every` a duration; staircase: the exponent is rounded down.

    Keras' ExponentialDecay, which EfficientNet has with a staircase of 0.97 every 2.4 epochs; with
    it timm's StepLRScheduler and torch's StepLR, and with every of an epoch ExponentialLR.
    """
    if every >= steps:
        raise ConfigError(f"a fall every {every} steps in a schedule of {steps}",
                          where="config.schedule.every", fix="train for longer, or give less")
    return optax.exponential_decay(1.0, every, factor, staircase=staircase)
