"""Softmax cross-entropy."""

import optax

from imgcls_jax.losses import LOSSES, _terms


@LOSSES.register(tasks=("multiclass",), scaled=True)
def softmax(logits, targets, *, smoothing: float = 0.0, class_weights: _terms.Weights = None):
    """Cross-entropy in nats of softmax(logits), with label smoothing (arXiv 1512.00567, sec. 7).

    logits, targets: f32[B,K]; the rows of targets sum to 1. class_weights: factor of each class,
    also for smoothed targets, as in torch.nn.CrossEntropyLoss(weight, label_smoothing,
    reduction="none"). Returns f32[B].
    """
    targets = _terms.weighted(_terms.smoothed(targets, smoothing), class_weights)
    return optax.softmax_cross_entropy(logits, targets)
