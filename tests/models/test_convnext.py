"""ConvNeXt in training and away from its published size; its numbers are tests/pretrained's."""

import jax
import numpy as np
import pytest

from imgcls_jax.init import initialise
from imgcls_jax.models.convnext import ConvNeXt, ResponseNorm, convnext_small, convnext_tiny
from tests.models import training


def small(**options):
    return ConvNeXt(5, (1, 2), (4, 8), **options)


@pytest.mark.nightly
def test_paths_drop_in_training_alone_by_the_linear_rule_of_the_paper(random_variables):
    x = training.images(2, 32, 32, 3)
    rates = training.drop_path_rates(convnext_tiny(5), x)
    np.testing.assert_allclose(rates, np.linspace(0, 0.1, 18))
    np.testing.assert_allclose(training.drop_path_rates(convnext_small(5), x)[-1], 0.4)
    x = training.images(2, 8, 8, 3)
    module = small(drop_path=1.0)
    v = random_variables(module, x)
    run = jax.jit(lambda v: module.apply(v, x, train=True, rngs={"dropout": jax.random.key(0)}))
    other = jax.tree.map(lambda leaf: leaf, v)
    other["params"]["stage2_block1"]["layer_scale"] = np.full(8, 3.0, np.float32)
    np.testing.assert_array_equal(run(v), run(other))  # the last block is never taken
    assert not np.allclose(jax.jit(module.apply)(v, x), jax.jit(module.apply)(other, x))


def test_branches_start_at_a_millionth_and_none_has_no_factor():
    x = training.images(2, 16, 16, 3)
    params = initialise(small(), x.shape, 0)["params"]
    np.testing.assert_array_equal(params["stage1_block0"]["layer_scale"], np.full(4, 1e-6, "f4"))
    shapes = jax.eval_shape(small(layer_scale=None).init, jax.random.key(0), x)
    assert "layer_scale" not in shapes["params"]["stage1_block0"]


@pytest.mark.nightly
def test_all_parameters_train_on_one_channel(random_variables):
    module = ConvNeXt(5, (1, 1), (4, 8), drop_path=0.3, dtype="bfloat16")
    x = training.images(8, 8, 8, 1)
    training.assert_all_train(module, random_variables(module, x), x)


@pytest.mark.nightly
def test_remat_changes_neither_names_nor_numbers(random_variables):
    def build(remat):
        return ConvNeXt(5, (2,), (4,), remat=remat, drop_path=0.5)

    x = training.images(4, 8, 8, 3)
    training.assert_remat_changes_nothing(build, random_variables(build(False), x), x)


def test_pixels_beyond_the_last_patch_are_left_out_and_features_are_normalised(random_variables):
    module, x = ConvNeXt(0, (1, 1), (4, 8)), training.images(2, 30, 22, 3)
    v = random_variables(module, x)
    v["params"]["norm"] = {"scale": np.ones(8, "f4"), "bias": np.zeros(8, "f4")}
    features = jax.jit(module.apply)(v, x)
    np.testing.assert_array_equal(features, jax.jit(module.apply)(v, x[:, :28, :20]))
    np.testing.assert_allclose(features.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(features.std(-1), 1, rtol=1e-3)


def test_global_response_normalization_is_that_of_the_paper_and_starts_as_the_identity():
    x = training.images(2, 5, 3, 6)
    module = ResponseNorm("float32")
    v = module.init(jax.random.key(0), x)
    np.testing.assert_array_equal(module.apply(v, x), x)
    scale, bias = np.linspace(-1, 2, 6), np.linspace(1, 3, 6)
    norms = np.sqrt((x.astype("f8") ** 2).sum((1, 2), keepdims=True))
    expected = scale * (x * norms / norms.mean(-1, keepdims=True)) + bias + x
    v = {"params": {"scale": scale.astype("f4"), "bias": bias.astype("f4")}}
    np.testing.assert_allclose(module.apply(v, x), expected, rtol=1e-4)


def test_a_channel_that_is_zero_everywhere_has_finite_gradients():
    x = training.images(2, 3, 3, 4)
    x[..., 1] = 0
    module = ResponseNorm("float32")
    v = {"params": {"scale": np.ones(4, "f4"), "bias": np.zeros(4, "f4")}}
    gradient = jax.grad(lambda x: (module.apply(v, x) ** 2).sum())(x)
    assert np.isfinite(gradient).all()
