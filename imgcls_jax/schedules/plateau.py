"""A fall when the loss no longer does."""

import jax
import optax

from imgcls_jax.errors import ConfigError
from imgcls_jax.schedules import SCHEDULES


@SCHEDULES.register()
def plateau(steps: int, *, every: int, patience: int = 10, factor: float = 0.1,
            threshold: float = 1e-4, cooldown_periods: int = 0,
            floor: float = 0.0) -> optax.GradientTransformationExtraArgs:
    """Times `factor` when the mean training loss of a period of `every` steps, a duration, has not
    fallen below the best by the share `threshold` in more than `patience` periods on end, as
    torch's ReduceLROnPlateau; then `cooldown_periods` periods do not count."""
    if every * (patience + 1) >= steps:
        raise ConfigError(f"a patience of {patience} periods of {every} steps in a schedule of "
                          f"{steps}", where="config.schedule.patience",
                          fix="train for longer, or give less of either")
    watch = optax.contrib.reduce_on_plateau(factor, patience + 1, threshold, 0.0, cooldown_periods,
                                            accumulation_size=every, min_scale=floor)

    def update(updates, state, params=None, *, value, **others):
        # As it was before this step, whose loss can change but the rate of the next.
        scaled = jax.tree.map(lambda leaf: state.scale.astype(leaf.dtype) * leaf, updates)
        return scaled, watch.update(updates, state, params, value=value)[1]

    return optax.GradientTransformationExtraArgs(watch.init, update)
