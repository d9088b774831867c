"""Focal loss (arXiv 1708.02002): examples that are already classified well count less."""

import jax
import optax

from imgcls_jax.losses import LOSSES, _terms


@LOSSES.register(tasks=("binary", "multilabel"))
def focal(logits, targets, *, gamma: float = 2.0, alpha: float | None = 0.25,
          class_weights: _terms.Weights = None, reduce: _terms.Reduce = "sum"):
    """-alpha_t (1 - p_t)^gamma log p_t for sigmoid(logits) (eq. 5), as torchvision's.

    logits, targets: f32[B,K], targets in [0, 1]. alpha: factor of the positive terms, 1 - alpha of
    the others; None: 1 for both. class_weights: further factors of the positive terms. Returns
    f32[B].
    """
    _terms.check(0, gamma=gamma)
    if alpha is not None:
        _terms.check(0, 1, alpha=alpha)
    terms = optax.sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma)
    terms *= _terms.positive_weight(targets, class_weights)
    return _terms.over_classes(terms, reduce)


@LOSSES.register(tasks=("multiclass",), scaled=True)
def softmax_focal(logits, targets, *, gamma: float = 2.0, smoothing: float = 0.0,
                  class_weights: _terms.Weights = None):
    """-(1 - p)^gamma log p for softmax(logits), summed over the targets (eq. 4).

    logits, targets: f32[B,K]; the rows of targets sum to 1. With class_weights it is the
    class-balanced focal loss (arXiv 1901.05555, section 4.3). Returns f32[B].
    """
    _terms.check(0, gamma=gamma)
    targets = _terms.weighted(_terms.smoothed(targets, smoothing), class_weights)
    focus = _terms.power(1 - jax.nn.softmax(logits), gamma)
    return -(targets * focus * jax.nn.log_softmax(logits)).sum(-1)
