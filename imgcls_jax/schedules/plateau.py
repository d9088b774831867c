"""Lowers the learning rate when the loss stops falling."""

import jax
import optax

from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Positive, Share
from imgcls_jax.schedules import SCHEDULES


@SCHEDULES.register()
def plateau(steps: int, *, every: int, patience: int = 10, factor: Positive = 0.1,
            threshold: float = 1e-4, cooldown_periods: int = 0,
            floor: Share = 0.0) -> optax.GradientTransformationExtraArgs:
    """Multiplies by `factor` when the training loss stops falling, as torch's ReduceLROnPlateau.

    The loss is the mean over a period of `every` steps, a duration; it stops falling if it has not
    been below the best by the share `threshold` for more than `patience` periods in a row. The next
    `cooldown_periods` periods do not count."""
    if every * (patience + 1) >= steps:
        raise ConfigError(f"a patience of {patience} periods of {every} steps is too long for a "
                          f"schedule of {steps} steps", where="config.schedule.patience",
                          fix="train longer, or lower patience or every")
    watch = optax.contrib.reduce_on_plateau(factor, patience + 1, threshold, 0.0, cooldown_periods,
                                            accumulation_size=every, min_scale=floor)

    def update(updates, state, params=None, *, value, **others):
        # The scale before this step: a step's loss can only change the rate of the next one.
        scaled = jax.tree.map(lambda leaf: state.scale.astype(leaf.dtype) * leaf, updates)
        return scaled, watch.update(updates, state, params, value=value)[1]

    return optax.GradientTransformationExtraArgs(watch.init, update)
