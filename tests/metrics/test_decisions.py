"""Decisions at one half, beside numpy."""

import jax
import numpy as np

from imgcls_jax.metrics.decisions import decisions


def test_right_decisions_and_rows_of_them_are_counted():
    rng = np.random.default_rng(0)
    logits, mask = rng.normal(size=(50, 4)).astype(np.float32), (rng.random(50) < 0.8) * 1.0
    targets = (logits + rng.normal(size=(50, 4)) > 0).astype(np.float32)
    right = (logits > 0) == (targets > 0)
    metric = decisions("multilabel")
    found = metric.finish(jax.device_get(metric.update(logits, targets, mask)))
    np.testing.assert_allclose(found["label_accuracy"], right[mask > 0].mean(), rtol=1e-6)
    np.testing.assert_allclose(found["exact"], right.all(1)[mask > 0].mean(), rtol=1e-6)


def test_nan_is_no_right_no():
    metric = decisions("binary")
    sums = metric.update(np.array([[np.nan], [-1.0]]), np.zeros((2, 1)), np.ones(2))
    assert metric.finish(jax.device_get(sums)) == {"accuracy": 0.5}
