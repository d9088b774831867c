"""MobileNetV2 and V3, MNASNet: widths, publishers' BatchNorm, and what training alone shows."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgcls_jax.models import MODELS
from imgcls_jax.models.mnasnet import MNASNet
from imgcls_jax.models.mobilenet_v2 import MobileNetV2
from imgcls_jax.models.mobilenet_v3 import MobileNetV3, Row


def tiny_v2(num_classes=5, **options):
    return MobileNetV2(num_classes, ((1, 8, 1, 1), (3, 8, 1, 2)), 0.25, **options)


def tiny_v3(num_classes=5, **options):
    stages = ((Row(3, 8, 8, True, "relu", 2),), (Row(5, 24, 16, True, "hard_swish", 2),))
    return MobileNetV3(num_classes, stages, 24, 0.5, **options)


def tiny_mnasnet(num_classes=5, **options):
    return MNASNet(num_classes, 0.25, ((1, 16, 3, 1, 2), (3, 24, 5, 1, 2)), **options)


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.daily(2)
@pytest.mark.parametrize("name, width, params", [  # counted in torchvision 0.28
    ("mobilenet_v2", 0.5, 1_968_680), ("mobilenet_v3_small", 1.25, 3_644_912),
    ("mobilenet_v2", 1.4, 6_108_776), ("mobilenet_v3_large", 0.75, 3_377_576)])
def test_a_scaled_network_has_the_references_parameters(name, width, params):
    module = MODELS.get(name)(1000, width=width)
    shapes = jax.eval_shape(module.init, jax.random.key(0),
                            jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == params


@pytest.mark.daily(1)
@pytest.mark.parametrize("tiny, width", [(tiny_v3, 16), (tiny_v2, 1280), (tiny_mnasnet, 1280)])
def test_features_are_what_the_head_receives_at_any_size_and_channels(random_variables, tiny,
                                                                      width):
    x = images(2, 21, 40, 1)
    v = random_variables(tiny(), x)
    features = jax.jit(tiny(0).apply)(v, x)
    assert features.shape == (2, width)
    head = v["params"]["head"]
    np.testing.assert_allclose(jax.jit(tiny().apply)(v, x), features @ head["kernel"]
                               + head["bias"], rtol=1e-4, atol=1e-5)


@pytest.mark.nightly
@pytest.mark.parametrize("tiny, momentum", [(tiny_v2, 0.9), (tiny_v3, 0.99),
                                            (tiny_mnasnet, 0.9997)])
def test_training_drops_units_moves_statistics_and_has_finite_gradients(random_variables, tiny,
                                                                       momentum):
    x = images(8, 16, 16, 3)
    v = random_variables(tiny(), x)

    def training(module):
        def loss(params, key):
            y, state = module.apply({**v, "params": params}, x, train=True,
                                    mutable=["batch_stats"], rngs={"dropout": key})
            return -jax.nn.log_softmax(y)[:, 3].mean(), (y, state["batch_stats"])

        return jax.jit(lambda key: jax.grad(loss, has_aux=True)(v["params"], key))

    run = training(tiny(dropout=0.5))
    gradients, (y, stats) = run(jax.random.key(1))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert jnp.isfinite(leaf).all() and jnp.abs(leaf).max() > 0, path
    assert jnp.abs(run(jax.random.key(2))[1][0] - y).max() > 0.01
    stem = jax.lax.conv_general_dilated(
        x, v["params"]["stem_conv"]["kernel"], (2, 2), [(1, 1), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"))
    expected = momentum * v["batch_stats"]["stem_norm"]["mean"] + (
        1 - momentum) * stem.mean((0, 1, 2))
    np.testing.assert_allclose(stats["stem_norm"]["mean"], expected, rtol=1e-4)

    again = training(tiny(dropout=0.5, remat=True))(jax.random.key(1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
                 (gradients, (y, stats)), again)


@pytest.mark.parametrize("form, momentum, fan_out", [
    ("torchvision", 0.99, 25 * 16), ("timm", 0.9, 25)])
def test_statistics_and_parameters_start_as_the_publishers(form, momentum, fan_out):
    found = {}

    def watch(call, args, kwargs, context):
        found[context.module.path] = context.module
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        jax.eval_shape(tiny_v3(form=form).init, jax.random.key(0), images(1, 16, 16, 3))
    assert found["stem_norm",].momentum == momentum
    init = found["stage2_block0", "depthwise_conv"].kernel_init
    kernel = init(jax.random.key(0), (5, 5, 1, 16), jnp.float32)
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fan_out), rtol=0.15)
    head = np.abs(found["head",].kernel_init(jax.random.key(0), (16, 25), jnp.float32)).max()
    assert 0.18 < head <= 0.2 if form == "timm" else head < 0.05
