"""Evaluators: `(parts, *, ...) -> (variables) -> {metric: float, or an array}`.

`parts` is evaluators.Parts. An evaluator whose work is one jitted function (variables, batch) may
offer it as its attribute `program`; then it takes the compiled function as its second argument. One
that reads other splits than that of its evaluation names them in its attribute `splits`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from imgcls_jax.registry import Registry

EVALUATORS = Registry("evaluator", __name__)


@dataclasses.dataclass(frozen=True)
class Parts:
    """What every evaluator is made of; an evaluator takes what it needs.

    predict: (variables, u8[B,H,W,C]) -> logits f32[B,K], to be compiled by the evaluator.
    embed: the same -> features f32[B,D], the classifier's input. batches: (split, or None for that
    of the evaluation) -> iterator of global batches on the device, each example exactly once,
    padded rows masked.
    """

    predict: Callable
    embed: Callable
    batches: Callable
    task: Any  # types.Task
