"""VGG: what parity does not see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgcls_jax.errors import ConfigError
from imgcls_jax.models.vgg import VGG


def images(size, channels=3, batch=4):
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, size, size, channels)).astype(np.float32)


def test_units_are_flattened_with_the_channels_first(random_variables):
    x = images(14)
    module = VGG(0, (1,), width=2, hidden=5)
    v = random_variables(module, x)
    _, state = module.apply(v, x, capture_intermediates=lambda m, _: m.name == "stage1_conv0")
    maps = np.maximum(state["intermediates"]["stage1_conv0"]["__call__"][0], 0)
    maps = maps.reshape(4, 7, 2, 7, 2, 2).max((2, 4))  # 2x2 pooling, 7x7 cells
    y = np.stack([maps[..., channel].reshape(4, 49) for channel in range(2)], 1).reshape(4, 98)
    for name in ("fc1", "fc2"):
        y = np.maximum(y @ v["params"][name]["kernel"] + v["params"][name]["bias"], 0)
    np.testing.assert_allclose(module.apply(v, x), y, rtol=1e-4, atol=1e-5)


@pytest.mark.nightly
def test_half_of_the_last_units_are_dropped_in_training_alone(random_variables):
    x = images(8, batch=2)
    module = VGG(0, (1,), width=4, hidden=4096)
    v = random_variables(module, x)
    v["params"]["fc2"] = jax.tree.map(jnp.abs, v["params"]["fc2"])  # so that ReLU gives no zero
    trained = jax.jit(lambda v: module.apply(v, x, train=True, rngs={
        "dropout": jax.random.key(0)}))(v)
    assert abs(float((trained == 0).mean()) - 0.5) < 0.03
    assert not (jax.jit(module.apply)(v, x) == 0).any()


@pytest.mark.parametrize("size, channels", [(32, 1), (40, 3), (130, 3)])
def test_images_of_any_size_from_32_pixels_and_channels(size, channels):
    module = VGG(7, (1, 1, 1, 1, 1), width=8)
    x = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)
    logits, v = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
    assert logits.shape == (2, 7)
    assert v["params"]["fc1"]["kernel"].shape == (64 * 49, 4096)


def test_smaller_images_are_refused():
    with pytest.raises(ConfigError, match="does not fit into a map of 1x1"):
        jax.eval_shape(VGG(7, (1, 1, 1, 1, 1)).init, jax.random.key(0), images(31))


@pytest.mark.nightly
def test_gradients_are_finite_and_statistics_move(random_variables):
    x = images(16)
    module = VGG(3, (1, 2), True, width=4, hidden=8, dropout=0.0, norm_group=2)
    v = random_variables(module, x)

    def loss(params):
        y, state = module.apply({**v, "params": params}, x, train=True, mutable=["batch_stats"])
        return -jax.nn.log_softmax(y)[:, 1].mean(), state

    gradients, state = jax.jit(jax.grad(loss, has_aux=True))(v["params"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert jnp.isfinite(leaf).all(), path
        # BatchNorm takes the bias of the convolution before it away.
        assert jnp.abs(leaf).max() > 0 or "conv" in str(path), path
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state["batch_stats"], v["batch_stats"])
    assert all(jax.tree.leaves(moved))
