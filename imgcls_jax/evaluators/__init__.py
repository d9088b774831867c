"""Evaluators: `(predict, batches, task, *, ...) -> (variables) -> {metric: float}`.

predict: (variables, u8[B,H,W,C]) -> logits f32[B,K], to be compiled by the evaluator.
batches: () -> iterator of global batches on the device, each example exactly once, padded rows
masked. task: types.Task. An evaluator whose work is one jitted function (variables, batch) may give
it as its attribute `program`; then it takes the compiled one as its second argument.
"""

from imgcls_jax.registry import Registry

EVALUATORS = Registry("evaluator", __name__)
