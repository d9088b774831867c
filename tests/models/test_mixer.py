"""MLP-Mixer in training and what mixes with what; its numbers are tests/pretrained's."""

import jax
import numpy as np
import pytest

from imgcls_jax.errors import ConfigError
from imgcls_jax.init import initialise
from imgcls_jax.models.mixer import Mixer, mixer_s16
from tests.models import training


def small(num_classes=5, **options):
    return Mixer(num_classes, 4, 8, 2, 6, 12, **options)


def test_without_the_token_perceptron_no_token_sees_another(random_variables):
    module, x = small(0), training.images(1, 8, 8, 3)
    v = random_variables(module, x)
    shuffled = np.concatenate((x[:, 4:], x[:, :4]), 1)  # the rows of patches change places
    same = jax.jit(module.apply)
    assert not np.allclose(same(v, x), same(v, shuffled), rtol=1e-3)
    for i in range(2):
        out = v["params"][f"block{i}"]["tokens"]["out"]
        v["params"][f"block{i}"]["tokens"]["out"] = jax.tree.map(np.zeros_like, out)
    np.testing.assert_allclose(same(v, x), same(v, shuffled), rtol=1e-4, atol=1e-5)


def test_paths_drop_in_training_by_the_linear_rule_in_both_branches():
    rates = training.drop_path_rates(mixer_s16(5, drop_path=0.7), training.images(2, 32, 32, 3))
    np.testing.assert_allclose(rates, np.repeat(np.linspace(0, 0.7, 8), 2))


@pytest.mark.nightly
def test_units_drop_in_training_alone(random_variables):
    module, x = small(dropout=0.5), training.images(2, 8, 8, 3)
    v = random_variables(module, x)
    run = jax.jit(lambda key: module.apply(v, x, train=True, rngs={"dropout": key}))
    assert not np.allclose(run(jax.random.key(0)), run(jax.random.key(1)))
    np.testing.assert_array_equal(jax.jit(module.apply)(v, x), jax.jit(small().apply)(v, x))


def test_logits_start_at_the_bias():
    x = training.images(2, 8, 8, 3)
    logits = jax.jit(small(head_bias=-6.9).apply)(initialise(small(head_bias=-6.9), x.shape, 0), x)
    np.testing.assert_allclose(logits, np.full((2, 5), -6.9), rtol=1e-6)


@pytest.mark.nightly
def test_all_parameters_train_on_one_channel(random_variables):
    module, x = Mixer(5, 4, 8, 1, 6, 12, dropout=0.1, dtype="bfloat16"), training.images(8, 8, 8, 1)
    training.assert_all_train(module, random_variables(module, x), x)


@pytest.mark.nightly
def test_remat_changes_neither_names_nor_numbers(random_variables):
    x = training.images(4, 8, 8, 3)
    v = random_variables(small(), x)
    training.assert_remat_changes_nothing(
        lambda remat: small(remat=remat, drop_path=0.5, dropout=0.1), v, x)


def test_an_image_that_does_not_divide_into_patches_is_refused():
    with pytest.raises(ConfigError, match="height of 10 pixels"):
        jax.eval_shape(small().init, jax.random.key(0), training.images(1, 10, 8, 3))
