"""Half a cosine."""

import optax

from imgcls_jax.registry import Share
from imgcls_jax.schedules import SCHEDULES


@SCHEDULES.register()
def cosine(steps: int, *, floor: Share = 0.0) -> optax.Schedule:
    """Half a cosine from 1 to `floor` (arXiv 1608.03983, eq. 5, without restarts)."""
    return optax.cosine_decay_schedule(1.0, steps, alpha=floor)
