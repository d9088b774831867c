"""Steps: `(parts, *, ...) -> (state, batch) -> (state, Sums)`, pure. `parts` is steps.Parts."""

import dataclasses
from collections.abc import Callable
from typing import Any

from imgcls_jax.registry import Registry

STEPS = Registry("step", __name__)


@dataclasses.dataclass(frozen=True)
class Parts:
    """The parts that steps are built from; a step takes what it needs.

    prepare: (key, images u8[B,H,W,C], targets f32[B,K]) -> (images f[B,H,W,C], targets): normalises
      and applies all device transforms in order. optimizer: its update takes `value=`, the loss of
      the batch. ema: (ema, new values, step, optimizer state) -> ema, or None.
    by_shard: (gradients, dtype) -> gradients, as parallel.mesh.by_shard; None without a mesh.
    teacher: (state.constants, images from prepare) -> logits f32[B,K] of the model that the step's
      argument `teacher` names, or None.
    """

    apply: Callable  # module.apply
    task: Any  # types.Task
    optimizer: Any  # optax.GradientTransformationExtraArgs
    prepare: Callable
    ema: Callable | None
    seed: int
    by_shard: Callable | None = None
    teacher: Callable | None = None
