"""Sigmoid cross-entropy: every output is an independent binary decision."""

import jax
import optax

from imgcls_jax.losses import LOSSES, _terms


def cross_entropy(logits, targets, class_weights: _terms.Weights):
    """f[B,K] in nats; class_weights: factors of the positive terms, as torch's pos_weight."""
    if class_weights is None:
        return optax.sigmoid_binary_cross_entropy(logits, targets)
    positive = -_terms.weighted(targets, class_weights) * jax.nn.log_sigmoid(logits)
    return positive - (1 - targets) * jax.nn.log_sigmoid(-logits)


@LOSSES.register(tasks=("binary", "multilabel"))
def sigmoid(logits, targets, *, smoothing: float = 0.0, class_weights: _terms.Weights = None,
            reduce: _terms.Reduce = "sum"):
    """Cross-entropy in nats of sigmoid(logits), summed over the outputs or their mean.

    logits, targets: f32[B,K], targets in [0, 1]. smoothing: moves targets towards one half.
    class_weights: factor of each output's positive term, as torch.nn.BCEWithLogitsLoss(pos_weight).
    Returns f32[B].
    """
    targets = _terms.halved(targets, smoothing)
    return _terms.over_classes(cross_entropy(logits, targets, class_weights), reduce)


@LOSSES.register(tasks=("multiclass",))
def bce(logits, targets, *, smoothing: float = 0.0, target_threshold: float | None = None,
        class_weights: _terms.Weights = None, reduce: _terms.Reduce = "sum"):
    """Binary cross-entropy for each class: ResNet strikes back (arXiv 2110.00476, section 3.1).

    logits, targets: f32[B,K]; the rows of targets sum to 1. smoothing: over the classes.
    target_threshold: targets above it, such as those of mixup, become 1 and the others 0.
    class_weights: factors of the positive terms. reduce: "sum" over classes as in big_vision, or
    "mean" as timm's BinaryCrossEntropy by default. Returns f32[B].
    """
    targets = _terms.smoothed(targets, smoothing)
    if target_threshold is not None:
        _terms.check(0, 1, target_threshold=target_threshold)
        targets = (targets > target_threshold).astype(targets.dtype)
    return _terms.over_classes(cross_entropy(logits, targets, class_weights), reduce)
