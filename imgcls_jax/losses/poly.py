"""Poly-1 (arXiv 2204.12511): cross-entropy with its first polynomial coefficient changed."""

import jax
import optax

from imgcls_jax.losses import LOSSES, _terms
from imgcls_jax.losses.sigmoid import cross_entropy


@LOSSES.register(tasks=("multiclass",))
def poly(logits, targets, *, epsilon: float = 2.0, smoothing: float = 0.0):
    """Softmax cross-entropy + epsilon (1 - p_t), in nats (eq. 4 and listing 1).

    logits, targets: f32[B,K]; the rows of targets sum to 1. epsilon: above -1; 2 for ImageNet-1k.
    Returns f32[B].
    """
    _terms.check(-1, epsilon=epsilon)
    targets = _terms.smoothed(targets, smoothing)
    return optax.losses.poly_loss_cross_entropy(logits, targets, epsilon=epsilon)


@LOSSES.register(tasks=("binary", "multilabel"))
def sigmoid_poly(logits, targets, *, epsilon: float = 1.0, class_weights: _terms.Weights = None,
                 reduce: _terms.Reduce = "sum"):
    """Sigmoid cross-entropy + epsilon (1 - p_t) of each output, in nats (listing 2).

    logits, targets: f32[B,K], targets in [0, 1]. class_weights: factors of the positive terms.
    Returns f32[B].
    """
    _terms.check(-1, epsilon=epsilon)
    wrong = targets * jax.nn.sigmoid(-logits) + (1 - targets) * jax.nn.sigmoid(logits)
    wrong *= _terms.positive_weight(targets, class_weights)
    return _terms.over_classes(cross_entropy(logits, targets, class_weights) + epsilon * wrong,
                               reduce)
