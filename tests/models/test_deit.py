"""DeiT: two heads, tokens with and without a position, stochastic depth, initial values."""

import functools

import jax
import numpy as np
import pytest

from imgcls_jax.init import initialise
from imgcls_jax.models import deit
from imgcls_jax.models.deit import deit3_b16, deit3_s16, deit_ti16_distilled
from imgcls_jax.models.vit import ViT
from tests.models import training

distilled = functools.partial(ViT, 5, 4, 16, 2, 2, distilled=True, kernels="normal")


def test_logits_are_the_mean_of_two_heads_and_training_sows_each(random_variables):
    module, x = distilled(), training.images(3, 8, 8, 3)
    v = random_variables(module, x)
    apply = functools.partial(module.apply, mutable=["aux_logits"])
    logits, sown = jax.jit(functools.partial(apply, train=True))(v, x)
    (classes,), (distillation,) = (sown["aux_logits"][k] for k in ("class", "distillation"))
    assert not np.allclose(classes, distillation)
    np.testing.assert_allclose(logits, (classes + distillation) / 2, rtol=1e-6)
    evaluated, none = jax.jit(apply)(v, x)
    np.testing.assert_allclose(evaluated, logits, rtol=1e-6)
    assert not none


def test_each_head_reads_its_own_token(random_variables):
    module, x = distilled(), training.images(3, 8, 8, 3)
    v = random_variables(module, x)
    for i in range(2):  # nothing moves between tokens
        block = v["params"][f"block{i}"]["attention"]["out"]
        v["params"][f"block{i}"]["attention"]["out"] = jax.tree.map(np.zeros_like, block)
    run = jax.jit(functools.partial(module.apply, train=True, mutable=["aux_logits"]))
    before = run(v, x)[1]["aux_logits"]
    v["params"]["token_distillation"] = v["params"]["token_distillation"][..., ::-1]
    after = run(v, x)[1]["aux_logits"]
    np.testing.assert_array_equal(before["class"][0], after["class"][0])
    assert not np.allclose(before["distillation"][0], after["distillation"][0])


def test_features_are_the_mean_of_both_tokens(random_variables):
    x = training.images(3, 8, 8, 3)
    v = random_variables(distilled(), x)
    tokens = jax.jit(functools.partial(distilled().apply, capture_intermediates=True))(
        v, x)[1]["intermediates"]["norm"]["__call__"][0]
    features = jax.jit(ViT(0, 4, 16, 2, 2, distilled=True).apply)(v, x)
    np.testing.assert_allclose(features, tokens[:, :2].mean(1), rtol=1e-5, atol=1e-6)


@pytest.mark.nightly
def test_all_parameters_of_the_distilled_and_of_deit3_train_on_one_channel(random_variables):
    x = training.images(8, 8, 8, 1)
    small = functools.partial(ViT, 5, 4, 16, 1, 2, dtype="bfloat16")
    for module in (small(distilled=True), small(token_position=False, layer_scale=1e-4)):
        training.assert_all_train(module, random_variables(module, x), x)


def test_a_token_without_a_position_is_not_in_the_table(monkeypatch):
    monkeypatch.setattr(deit, "ViT", lambda classes, patch, width, depth, heads, **options: ViT(
        classes, patch, width, 1, heads, **options))  # the table is beside the blocks

    def table(module):
        shapes = jax.eval_shape(module.init, jax.random.key(0), training.images(2, 32, 32, 3))
        return shapes["params"]["positions"].shape

    assert table(deit3_s16(5)) == (1, 4, 384)
    assert table(deit_ti16_distilled(5)) == (1, 6, 192)


@pytest.mark.nightly
def test_paths_drop_at_one_rate_in_deit3_and_by_the_linear_rule_in_deit():
    x = training.images(2, 32, 32, 3)
    assert training.drop_path_rates(deit3_b16(5), x) == [0.2] * 24
    np.testing.assert_allclose(training.drop_path_rates(deit_ti16_distilled(5), x),
                               np.repeat(np.linspace(0, 0.1, 12), 2))


def test_branches_start_at_the_layer_scale_and_kernels_at_a_deviation_of_a_fiftieth():
    module = ViT(5, 4, 32, 1, 2, layer_scale=1e-4, kernels="normal")
    params = initialise(module, (2, 8, 8, 3), 0)["params"]
    block = params["block0"]
    for name in ("layer_scale1", "layer_scale2"):
        np.testing.assert_array_equal(block[name], np.full(32, 1e-4, "f4"))
    for kernel in (block["attention"]["qkv"], block["mlp"]["hidden"], block["mlp"]["out"]):
        np.testing.assert_allclose(np.std(kernel["kernel"]), 0.02, rtol=0.1)
        np.testing.assert_array_equal(kernel["bias"], 0)
    assert np.abs(params["head"]["kernel"]).max() > 0


@pytest.mark.nightly
def test_remat_changes_neither_names_nor_numbers(random_variables):
    x = training.images(4, 8, 8, 3)

    def build(remat):
        return ViT(5, 4, 16, 1, 2, layer_scale=0.1, remat=remat, drop_path=0.5, dropout=0.1,
                   drop_path_rule="constant")

    training.assert_remat_changes_nothing(build, random_variables(build(False), x), x)
