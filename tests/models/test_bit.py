"""BiT: standardised kernels, no statistic of a batch, training; its numbers are
tests/pretrained's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgcls_jax.init import initialise
from imgcls_jax.models.bit import BiT, bit_r50x1, standardise
from tests.models import training

small = functools.partial(BiT, 3, (1, 1), 32)


def test_each_kernel_is_standardised_so_that_its_size_says_nothing(random_variables):
    kernel = standardise(jnp.asarray(training.images(3, 3, 5, 4)) * 7 + 2)
    np.testing.assert_allclose(kernel.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(kernel.std((0, 1, 2)), 1, rtol=1e-5)
    x = training.images(2, 32, 32, 3)
    v = random_variables(small(), x)
    other = jax.tree.map(lambda leaf: leaf, v)
    for name in ("conv1", "conv2", "shortcut_conv"):
        other["params"]["stage1_block0"][name]["kernel"] = (
            5 * v["params"]["stage1_block0"][name]["kernel"] + 1)
    apply = jax.jit(small().apply)
    np.testing.assert_allclose(apply(v, x), apply(other, x), rtol=1e-3, atol=1e-4)


def test_an_example_of_a_training_batch_depends_on_no_other(random_variables):
    x = training.images(4, 32, 32, 3)
    v = random_variables(small(), x)
    run = jax.jit(functools.partial(small().apply, train=True))
    np.testing.assert_allclose(run(v, x)[:1], run(v, x[:1]), rtol=1e-4, atol=1e-4)


def test_zeros_stand_around_the_image_where_the_stem_is_pooled(random_variables):
    x = training.images(1, 32, 32, 3)
    v = random_variables(small(), x)
    _, seen = jax.jit(functools.partial(small().apply, capture_intermediates=True))(v, x)
    stem = np.asarray(seen["intermediates"]["stem_conv"]["__call__"][0])
    padded = np.pad(stem, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    pooled = windows[:, ::2, ::2].max((-1, -2))
    group = pooled.reshape(1, -1, 32)  # a group of the first norm is one channel here
    expected = (group - group.mean(1)) / np.sqrt(group.var(1) + 1e-5)
    norm = v["params"]["stage1_block0"]["norm1"]
    expected = (expected * norm["scale"] + norm["bias"]).reshape(pooled.shape)
    found = seen["intermediates"]["stage1_block0"]["norm1"]["__call__"][0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert (pooled[:, 0] >= 0).all() and (pooled < 0).any()


@pytest.mark.nightly
def test_paths_drop_in_training_by_the_linear_rule():
    rates = training.drop_path_rates(bit_r50x1(5, width=32, drop_path=0.3),
                                     training.images(2, 32, 32, 3))
    np.testing.assert_allclose(rates, np.linspace(0, 0.3, 16))


def test_the_head_of_no_classes_is_none_and_may_start_at_zero():
    x = training.images(2, 32, 32, 3)
    shapes = jax.eval_shape(BiT(0, (1, 1), 32).init, jax.random.key(0), x)
    assert "head" not in shapes["params"]
    assert jax.eval_shape(BiT(0, (1, 1), 32).apply, shapes, x).shape == (2, 256)
    head = initialise(small(zero_head=True), x.shape, 0)["params"]["head"]
    np.testing.assert_array_equal(head["kernel"], 0)


@pytest.mark.nightly
def test_all_parameters_train_on_one_channel(random_variables):
    module, x = small(drop_path=0.3, dtype="bfloat16"), training.images(8, 32, 32, 1)
    training.assert_all_train(module, random_variables(module, x), x)


@pytest.mark.nightly
def test_remat_changes_neither_names_nor_numbers(random_variables):
    def build(remat):
        return BiT(3, (2,), 32, remat=remat, drop_path=0.5)

    x = training.images(4, 16, 16, 3)
    training.assert_remat_changes_nothing(build, random_variables(build(False), x), x)
