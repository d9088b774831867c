"""EfficientNet: the rules of its scaling, its two forms, and what training alone shows."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgcls_jax.layers.drop import DropPath
from imgcls_jax.models import MODELS
from imgcls_jax.models._efficientnet import EfficientNet, Stage

TINY = (Stage(1, 3, 1, 8, 1, fused=True), Stage(2, 3, 2, 12, 1, fused=True), Stage(3, 5, 2, 16, 2))


def tiny(num_classes=5, **options):
    return EfficientNet(num_classes, TINY, 8, 24, **options)


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name, stem, features, blocks, last", [
    ("efficientnet_b0", 32, (16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1), 1280),
    ("efficientnet_b1", 32, (16, 24, 40, 80, 112, 192, 320), (2, 3, 3, 4, 4, 5, 2), 1280),
    ("tf_efficientnet_b3", 40, (24, 32, 48, 96, 136, 232, 384), (2, 3, 3, 5, 5, 6, 2), 1536),
    ("efficientnet_b7", 64, (32, 48, 80, 160, 224, 384, 640), (4, 7, 7, 10, 10, 13, 4), 2560),
    # Of Lite, the first and last convolution and the depths of the first and last stage stay.
    ("efficientnet_lite4", 32, (24, 32, 56, 112, 160, 272, 448), (1, 4, 4, 6, 6, 8, 1), 1280)])
def test_widths_are_rounded_to_eights_and_depths_up(name, stem, features, blocks, last):
    module = MODELS.get(name)(1000)
    assert (module.stem, module.last) == (stem, last)
    assert tuple(stage.features for stage in module.stages) == features
    assert tuple(stage.blocks for stage in module.stages) == blocks


@pytest.mark.parametrize("name, momentum, epsilon, dropout", [
    ("efficientnet_b0", 0.9, 1e-5, 0.2), ("efficientnet_b4", 0.9, 1e-5, 0.4),
    ("efficientnet_b5", 0.99, 1e-3, 0.4), ("efficientnet_b7", 0.99, 1e-3, 0.5),
    ("tf_efficientnet_b0", 0.99, 1e-3, 0.2), ("tf_efficientnet_b2", 0.99, 1e-3, 0.3),
    ("efficientnet_v2_s", 0.9, 1e-3, 0.2), ("efficientnet_v2_l", 0.9, 1e-3, 0.4),
    ("tf_efficientnetv2_m", 0.9, 1e-3, 0.3), ("efficientnet_lite4", 0.99, 1e-3, 0.3)])
def test_batch_norm_and_dropout_are_those_of_the_publisher(name, momentum, epsilon, dropout):
    module = MODELS.get(name)(1000)
    assert (module.momentum, module.epsilon, module.dropout) == (momentum, epsilon, dropout)


def test_the_probability_of_dropping_a_branch_grows_linearly_over_all_blocks():
    found = {}

    def watch(call, args, kwargs, context):
        if isinstance(context.module, DropPath):
            found[context.module.path[0]] = context.module.rate
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(MODELS.get("efficientnet_b0")(10).init, jax.random.key(0),
                       jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
    # The blocks that add their input: all but the first of each of B0's seven stages.
    expected = {"stage2_block1": 2, "stage3_block1": 4, "stage4_block1": 6, "stage4_block2": 7,
                "stage5_block1": 9, "stage5_block2": 10, "stage6_block1": 12,
                "stage6_block2": 13, "stage6_block3": 14}
    assert found == pytest.approx({name: 0.2 * i / 16 for name, i in expected.items()})


@pytest.mark.nightly
def test_both_forms_are_one_where_every_map_is_odd_and_only_there(random_variables):
    """TensorFlow's padding at stride 2 is symmetric on an odd side: 33, 17, 9, 5."""
    v = random_variables(tiny(), images(2, 33, 33, 3))
    for size, same in ((33, True), (32, False)):
        x = images(2, size, size, 3)
        torch, tensorflow = (jax.jit(tiny(form=form).apply)(v, x)
                             for form in ("torch", "tensorflow"))
        error = np.abs(torch - tensorflow).max() / np.abs(torch).max()
        assert (error < 1e-5) if same else (error > 1e-3)


@pytest.mark.parametrize("form, fan_out", [("torch", 25 * 36), ("tensorflow", 25)])
def test_depthwise_kernels_start_larger_in_tensorflows_form(form, fan_out):
    found = {}

    def watch(call, args, kwargs, context):
        if context.module.path[-1:] == ("depthwise_conv",):
            found[context.module.path[0]] = context.module.kernel_init
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(tiny(form=form).init, jax.random.key(0), images(1, 16, 16, 3))
    kernel = found["stage3_block0"](jax.random.key(0), (5, 5, 1, 36), jnp.float32)
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fan_out), rtol=0.1)


def test_features_are_what_the_head_receives_at_any_size_and_channels(random_variables):
    x = images(2, 21, 40, 1)
    v = random_variables(tiny(), x)
    features = jax.jit(tiny(0).apply)(v, x)
    assert features.shape == (2, 24)
    head = v["params"]["head"]
    np.testing.assert_allclose(jax.jit(tiny().apply)(v, x), features @ head["kernel"]
                               + head["bias"], rtol=1e-5)


def training(module, v, x):
    """key -> (logits, gradients, moved statistics) in training."""
    def loss(params, key):
        y, state = module.apply({**v, "params": params}, x, train=True, mutable=["batch_stats"],
                                rngs={"dropout": key})
        return -jax.nn.log_softmax(y)[:, 3].mean(), (y, state["batch_stats"])

    @jax.jit
    def run(key):
        gradients, (y, stats) = jax.grad(loss, has_aux=True)(v["params"], key)
        return y, gradients, stats

    return run


@pytest.mark.nightly
def test_training_has_finite_gradients_and_moves_statistics_with_or_without_remat(
        random_variables):
    x = images(8, 16, 16, 3)
    options = {"drop_path": 0.5, "dropout": 0.5, "norm_group": 4, "momentum": 0.75}
    v = random_variables(tiny(), x)
    y, gradients, stats = training(tiny(**options), v, x)(jax.random.key(1))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert jnp.isfinite(leaf).all() and jnp.abs(leaf).max() > 0, path
    stem = jax.lax.conv_general_dilated(
        x, v["params"]["stem_conv"]["kernel"], (2, 2), [(1, 1), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"))
    old = v["batch_stats"]["stem_norm"]["mean"]
    np.testing.assert_allclose(stats["stem_norm"]["mean"],
                               0.75 * old + 0.25 * stem.mean((0, 1, 2)), rtol=1e-4)

    again = training(tiny(remat=True, **options), v, x)(jax.random.key(1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
                 (y, gradients, stats), again)


@pytest.mark.parametrize("options, differs", [
    ({"drop_path": 0.0, "dropout": 0.0}, False), ({"drop_path": 0.0, "dropout": 0.5}, True),
    ({"drop_path": 0.9, "dropout": 0.0}, True)])
def test_either_dropout_is_random_in_training(random_variables, options, differs):
    module = EfficientNet(5, (Stage(1, 3, 1, 8, 2),), 8, 24, **options)
    x = images(8, 8, 8, 3)
    v = random_variables(module, x)

    @jax.jit
    def logits(key):
        return module.apply(v, x, train=True, mutable=["batch_stats"],
                                     rngs={"dropout": key})[0]

    assert bool(jnp.any(logits(jax.random.key(1)) != logits(jax.random.key(2)))) == differs
