"""Mixup against its formula, for one weight per batch and the next example as partner."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from imgcls_jax.device_transforms import DEVICE_TRANSFORMS
from imgcls_jax.errors import ConfigError


def test_images_and_targets_are_mixed_by_the_same_weight():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(5, 4, 4, 3)).astype(np.float32)
    targets = np.eye(5, dtype=np.float32)
    mixed_images, mixed_targets = jax.jit(DEVICE_TRANSFORMS.get("mixup")(alpha=0.8))(
        jax.random.key(3), images, targets)
    weight = float(mixed_targets[0, 0])
    assert 0.5 <= weight < 1
    partner = [4, 0, 1, 2, 3]
    for mixed, given in ((mixed_images, images), (mixed_targets, targets)):
        np.testing.assert_allclose(mixed, weight * given + (1 - weight) * given[partner], atol=1e-6)


def test_a_share_p_of_batches_is_mixed_by_the_larger_of_a_beta_variable_and_its_complement():
    mixup = DEVICE_TRANSFORMS.get("mixup")(alpha=0.4, p=0.3)
    images, targets = jnp.zeros((2, 1, 1, 1)), jnp.eye(2)
    weight = jax.jit(jax.vmap(lambda key: mixup(key, images, targets)[1][0, 0]))
    weights = np.asarray(weight(jax.random.split(jax.random.key(0), 3000)))
    mixed = weights[weights < 1]
    assert 800 <= len(mixed) <= 1000  # 900 expected, standard deviation 25
    beta = stats.beta(0.4, 0.4)
    found = stats.kstest(mixed, lambda w: np.clip(beta.cdf(w) - beta.cdf(1 - w), 0, 1))
    assert found.pvalue > 0.001


def test_an_alpha_that_has_no_distribution_is_refused():
    with pytest.raises(ConfigError):
        DEVICE_TRANSFORMS.get("mixup")(alpha=0.0)
