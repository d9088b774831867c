"""Losses: `(logits f32[B,K], targets f32[B,K], *, ...) -> f32[B]`, no reduction.

`@LOSSES.register(tasks=("binary", "multilabel"))` says which tasks a loss is for; for a binary task
K is 1. `scaled=True` says that `class_weights` scale the loss of an example, by the weight of its
class. The arguments `class_weights` and `prior` may be "auto": assembly replaces it by numbers,
one for each of the K outputs, computed from the training labels (tasks.py).
"""

from imgcls_jax.registry import Registry

LOSSES = Registry("loss", __name__, needs=("tasks",))
