"""Swin and Swin v2 in training and on other maps; their numbers are tests/pretrained's."""

import jax
import numpy as np
import pytest

from imgcls_jax.models.swin import Swin, swin_b, swin_t
from tests.models import training


def small(num_classes=5, blocks=(2, 1), **options):
    return Swin(num_classes, 8, blocks, (1, 2), 4, **options)


@pytest.mark.nightly
def test_both_branches_drop_in_training_alone_by_the_linear_rule():
    x = training.images(2, 32, 32, 3)
    rates = training.drop_path_rates(swin_t(5), x)
    np.testing.assert_allclose(rates, np.repeat(np.linspace(0, 0.2, 12), 2))
    np.testing.assert_allclose(training.drop_path_rates(swin_b(5), x)[-1], 0.5)


@pytest.mark.nightly
@pytest.mark.parametrize("version", [1, 2])
def test_all_parameters_train_on_one_channel(random_variables, version):
    x = training.images(8, 36, 20, 1)
    module = small(version=version, drop_path=0.3, dtype="bfloat16")
    v = random_variables(module, x)
    for path, gradient in jax.tree_util.tree_leaves_with_path(
            training.loss_and_gradients(module, v, x)[1]):
        gradient = np.asarray(gradient, np.float32)
        assert np.isfinite(gradient).all(), path
        keys = version == 2 and "['qkv']['bias']" in jax.tree_util.keystr(path)
        parts = np.abs(gradient.reshape(-1, 3, gradient.shape[-1] // 3)).max((0, 2)) if (
            keys) else np.abs(gradient).max(keepdims=True)
        np.testing.assert_array_equal(parts.ravel() > 0, [True, False, True] if keys else True)


@pytest.mark.nightly
@pytest.mark.parametrize("version", [1, 2])
def test_remat_changes_neither_names_nor_numbers(random_variables, version):
    def build(remat):
        return small(blocks=(2,), version=version, remat=remat, drop_path=0.5)

    x = training.images(4, 32, 32, 3)
    training.assert_remat_changes_nothing(build, random_variables(build(False), x), x)


@pytest.mark.daily(1)
@pytest.mark.parametrize("version", [1, 2])
def test_pixels_beyond_the_last_patch_are_left_out_and_a_shift_reaches_the_next_window(
        random_variables, version):
    module, x = small(0, (1, 1), version=version), training.images(2, 34, 22, 3)
    v = random_variables(module, x)
    run = jax.jit(module.apply)
    features = run(v, x)
    assert features.shape == (2, 16)
    np.testing.assert_array_equal(features, run(v, x[:, :32, :20]))

    stage = small(0, (2,), version=version)
    last = jax.jit(lambda v, x: stage.apply(
        v, x, capture_intermediates=lambda m, _: m.name == "stage1_block1",
        mutable="intermediates")[1]["intermediates"]["stage1_block1"]["__call__"][0])
    x, other = x[:, :32, :20], x[:, :32, :20].copy()
    other[:, 17, 1] += 1  # in a window that is rows 4 to 7 of the map, and if shifted, 2 to 5
    v = random_variables(stage, x)
    change = np.abs(last(v, x) - last(v, other)).max((0, 2, 3))
    np.testing.assert_array_equal(np.flatnonzero(change > 1e-6), range(2, 8))
