"""Asymmetric loss (arXiv 2009.14119): easy negatives count least."""

import jax
import jax.numpy as jnp

from imgcls_jax.losses import LOSSES, _terms


@LOSSES.register(tasks=("binary", "multilabel"))
def asymmetric(logits, targets, *, gamma_negative: float = 4.0, gamma_positive: float = 1.0,
               clip: float = 0.05, class_weights: _terms.Weights = None,
               reduce: _terms.Reduce = "sum"):
    """Eq. 7: (1-p)^g+ log p for positives, m^g- log(1-m) for negatives, m = max(p-clip, 0).

    logits, targets: f32[B,K]; targets of 0 and 1, others weight both terms. class_weights: factors
    of the positive terms. As timm's AsymmetricLossMultiLabel, but exact where timm keeps
    probabilities above 1e-8. Returns f32[B].
    """
    _terms.check(0, gamma_negative=gamma_negative, gamma_positive=gamma_positive)
    _terms.check(0, 0.999, clip=clip)
    right, wrong = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    positive = _terms.power(wrong, gamma_positive) * jax.nn.log_sigmoid(logits)
    log_not = jnp.log(jnp.minimum(wrong + clip, 1)) if clip else jax.nn.log_sigmoid(-logits)
    negative = _terms.power(jnp.maximum(right - clip, 0), gamma_negative) * log_not
    terms = _terms.weighted(targets, class_weights) * positive + (1 - targets) * negative
    return _terms.over_classes(-terms, reduce)


@LOSSES.register(tasks=("multiclass",))
def softmax_asymmetric(logits, targets, *, gamma_negative: float = 4.0,
                       gamma_positive: float = 1.0, smoothing: float = 0.1):
    """The same for softmax(logits), as the paper's code and timm's AsymmetricLossSingleLabel.

    logits, targets: f32[B,K]; the rows of targets sum to 1. smoothing: without it the other classes
    have no term. Returns f32[B].
    """
    _terms.check(0, gamma_negative=gamma_negative, gamma_positive=gamma_positive)
    p = jax.nn.softmax(logits)
    focus = (targets * _terms.power(1 - p, gamma_positive)
             + (1 - targets) * _terms.power(p, gamma_negative))
    return -(_terms.smoothed(targets, smoothing) * focus * jax.nn.log_softmax(logits)).sum(-1)
