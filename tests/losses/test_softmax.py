"""Softmax cross-entropy against numpy."""

import numpy as np
import pytest

from imgcls_jax.losses.softmax import softmax

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 5)) * 4
HARD = np.eye(5)[[0, 3, 4, 1, 1, 2]]
SOFT = RNG.dirichlet(np.ones(5), 6)


def reference(logits, targets, smoothing):
    targets = targets * (1 - smoothing) + smoothing / targets.shape[-1]
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return -(targets * np.log(probabilities)).sum(-1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("targets", [HARD, SOFT], ids=["hard", "soft"])
def test_equals_numpy_per_example(targets, smoothing):
    loss = softmax(LOGITS.astype(np.float32), targets.astype(np.float32), smoothing=smoothing)
    assert loss.shape == (6,)
    np.testing.assert_allclose(loss, reference(LOGITS, targets, smoothing), rtol=2e-6)


def test_equal_logits_cost_the_logarithm_of_the_classes():
    np.testing.assert_allclose(softmax(np.full((6, 5), 3.0), HARD), np.log(5), rtol=1e-6)


def test_large_logits_do_not_overflow():
    logits = np.array([[1e4, 0.0], [0.0, 1e4]], np.float32)
    np.testing.assert_allclose(softmax(logits, np.eye(2, dtype=np.float32)), 0.0)
