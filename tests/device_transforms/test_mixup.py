"""Mixup against its formula, with the example before as partner."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from imgcls_jax.device_transforms import DEVICE_TRANSFORMS
from imgcls_jax.errors import ConfigError

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(5, 4, 4, 3)).astype(np.float32)
PARTNER = [4, 0, 1, 2, 3]


@pytest.mark.daily(2)
@pytest.mark.parametrize("arguments", [
    dict(alpha=0.8), dict(alpha=0.8, larger=False, mode="elem"), dict(alpha=0.8, larger=False),
    dict(alpha=0.8, mode="elem")])
def test_images_and_targets_are_mixed_by_the_same_weight(arguments):
    targets = np.eye(5, dtype=np.float32)
    mixed_images, mixed_targets = jax.jit(DEVICE_TRANSFORMS.get("mixup")(**arguments))(
        jax.random.key(3), IMAGES, targets)
    weights = np.diag(mixed_targets)
    assert len(set(weights.tolist())) == (5 if arguments.get("mode") == "elem" else 1)
    assert (0 < weights).all() and (weights < 1).all()
    assert (weights >= 0.5).all() or "larger" in arguments
    for mixed, given in ((mixed_images, IMAGES), (mixed_targets, targets)):
        weight = weights.reshape(-1, *(1,) * (given.ndim - 1))
        np.testing.assert_allclose(mixed, weight * given + (1 - weight) * given[PARTNER], atol=1e-6)


@pytest.mark.nightly
def test_bfloat16_images_are_mixed_in_f32_and_rounded_once():
    images = jnp.asarray(IMAGES, jnp.bfloat16)
    mixed, targets = DEVICE_TRANSFORMS.get("mixup")(alpha=0.8)(
        jax.random.key(3), images, jnp.eye(5))
    wide, weight = np.asarray(images, np.float32), targets[0, 0]
    exact = weight * wide + (1 - weight) * wide[PARTNER]
    assert mixed.dtype == jnp.bfloat16
    assert (np.abs(np.asarray(mixed, np.float32) - exact) <= 2**-8 * np.abs(exact)).all()


def weights(draws, **arguments):
    """Of as many batches of two, or, in mode elem, of the examples of one batch."""
    mixup = DEVICE_TRANSFORMS.get("mixup")(**arguments)
    if arguments.get("mode") == "elem":
        # No example has the class of its partner.
        targets = jnp.eye(2)[jnp.arange(draws) % 2]
        made = mixup(jax.random.key(0), jnp.zeros((draws, 1, 1, 1)), targets)[1]
        return np.asarray((made * targets).sum(1))
    images, targets = jnp.zeros((2, 1, 1, 1)), jnp.eye(2)
    weight = jax.jit(jax.vmap(lambda key: mixup(key, images, targets)[1][0, 0]))
    return np.asarray(weight(jax.random.split(jax.random.key(0), draws)))


@pytest.mark.daily(1)
@pytest.mark.parametrize("mode", ["batch", "elem"])
@pytest.mark.parametrize("larger", [True, False])
def test_a_share_p_is_mixed_by_a_beta_variable_or_the_larger_of_it_and_its_complement(larger, mode):
    found = weights(3000, alpha=0.4, p=0.3, larger=larger, mode=mode)
    mixed = found[found < 1]
    assert 800 <= len(mixed) <= 1000  # 900 expected, standard deviation 25
    beta = stats.beta(0.4, 0.4)
    folded = lambda w: np.clip(beta.cdf(w) - beta.cdf(1 - w), 0, 1)  # noqa: E731
    assert stats.kstest(mixed, folded if larger else beta.cdf).pvalue > 0.001


@pytest.mark.parametrize("name, arguments", [
    ("mixup", dict(alpha=0.0)), ("mixup", dict(alpha=1.0, p=1.5)), ("cutmix", dict(alpha=-1.0)),
    ("mixup_or_cutmix", dict(mixup_alpha=0.0, cutmix_alpha=1.0)),
    ("mixup_or_cutmix", dict(mixup_alpha=1.0, cutmix_alpha=1.0, switch_prob=2.0))])
def test_what_has_no_distribution_is_refused(name, arguments):
    with pytest.raises(ConfigError, match=name):
        DEVICE_TRANSFORMS.get(name)(**arguments)
