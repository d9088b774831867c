"""Logit adjustment for long tails (arXiv 2007.07314)."""

from typing import Literal

import jax.numpy as jnp
import optax

from imgcls_jax.losses import LOSSES, _terms


@LOSSES.register(tasks=("multiclass",))
def logit_adjusted(logits, targets, *, tau: float = 1.0, smoothing: float = 0.0,
                   prior: tuple[float, ...] | Literal["auto"] = "auto"):
    """Softmax cross-entropy in nats of logits + tau log(prior) (eq. 10).

    logits, targets: f32[B,K]; the rows of targets sum to 1. prior: the share of each class; "auto":
    that of the training labels. Metrics use the logits as they are; only the loss is adjusted.
    Returns f32[B].
    """
    _terms.check(0, tau=tau)
    shares = _terms.per_output(prior, logits, "prior")
    return optax.softmax_cross_entropy(logits + tau * jnp.log(shares / shares.sum()),
                                       _terms.smoothed(targets, smoothing))
