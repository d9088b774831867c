"""Softmax cross-entropy."""

import optax

from imgcls_jax.losses import LOSSES


@LOSSES.register()
def softmax(logits, targets, *, smoothing: float = 0.0):
    """Cross-entropy in nats of softmax(logits), with label smoothing (arXiv 1512.00567, sec. 7).

    logits, targets: f32[B,K]; the rows of targets sum to 1. Returns f32[B].
    """
    if smoothing:
        targets = optax.smooth_labels(targets, smoothing)
    return optax.softmax_cross_entropy(logits, targets)
