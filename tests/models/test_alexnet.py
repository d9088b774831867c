"""AlexNet: response normalisation, groups, and where units are dropped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgcls_jax.init import initialise
from imgcls_jax.models import MODELS
from imgcls_jax.models.alexnet import RESPONSE, AlexNet, local_response_norm


def images(size, batch=2):
    return np.random.default_rng(0).normal(size=(batch, size, size, 3)).astype(np.float32)


def normalised(a, k, n, alpha, beta):
    """Section 3.3 of the paper: b_i = a_i / (k + alpha sum_j a_j^2)^beta, j from
    max(0, i - n/2) to min(N - 1, i + n/2)."""
    b, count = np.empty_like(a), a.shape[-1]
    for i in range(count):
        j = slice(max(0, i - n // 2), min(count - 1, i + n // 2) + 1)
        b[..., i] = a[..., i] / (k + alpha * (a[..., j] ** 2).sum(-1)) ** beta
    return b


@pytest.mark.parametrize("constants", [
    {"k": 2.0, "size": 5, "alpha": 1e-4, "beta": 0.75},  # the paper's
    {"k": 1.0, "size": 3, "alpha": 0.7, "beta": 0.5}])
def test_response_normalisation_is_the_papers(constants):
    x = 30 * np.random.default_rng(0).normal(size=(2, 3, 4, 9))
    expected = normalised(x, constants["k"], constants["size"], constants["alpha"],
                          constants["beta"])
    with jax.enable_x64(True):
        np.testing.assert_allclose(local_response_norm(jnp.asarray(x), **constants), expected,
                                   rtol=1e-12)
    if constants["k"] == 2.0:
        np.testing.assert_allclose(local_response_norm(jnp.float32(x)), expected, rtol=1e-5)


def test_caffes_constants_divide_alpha_by_the_number_of_channels():
    k, alpha = RESPONSE["caffe"]
    assert (k, alpha) == (1.0, 1e-4 / 5)
    assert RESPONSE["paper"] == (2.0, 1e-4)


def test_original_normalises_the_first_two_maps_before_they_are_pooled(random_variables):
    x = images(67)
    module = AlexNet(0, (8, 4, 4, 4, 4), True, (2.0, 0.5), hidden=8)
    v = random_variables(module, x)
    seen = lambda m, _: m.name in ("conv1", "conv2")  # noqa: E731
    _, state = jax.jit(lambda v: module.apply(v, x, capture_intermediates=seen))(v)
    first = np.maximum(state["intermediates"]["conv1"]["__call__"][0], 0)
    first = normalised(first, 2.0, 5, 0.5, 0.75)
    windows = np.lib.stride_tricks.sliding_window_view(first, (3, 3), (1, 2))[:, ::2, ::2]
    pooled = np.pad(windows.max((-1, -2)), ((0, 0), (2, 2), (2, 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(pooled, (5, 5), (1, 2))
    kernel = np.asarray(v["params"]["conv2"]["kernel"])
    halves = [np.einsum("bhwcij,ijcd->bhwd", windows[:, :, :, 4 * g:4 * g + 4],
                        kernel[..., 2 * g:2 * g + 2]) for g in (0, 1)]
    second = np.concatenate(halves, -1) + v["params"]["conv2"]["bias"]
    np.testing.assert_allclose(state["intermediates"]["conv2"]["__call__"][0], second, rtol=1e-4,
                               atol=1e-5)


def test_the_second_fourth_and_fifth_convolutions_of_the_original_have_two_groups():
    x = jax.ShapeDtypeStruct((1, 227, 227, 3), jnp.float32)
    v = jax.eval_shape(MODELS.get("alexnet_caffe")(1000).init, jax.random.key(0), x)["params"]
    inputs = [v[f"conv{i}"]["kernel"].shape[2] for i in range(1, 6)]
    assert inputs == [3, 48, 256, 192, 192]
    assert v["fc1"]["kernel"].shape == (6 * 6 * 256, 4096)


def test_original_starts_with_positive_biases_where_the_paper_does():
    v = initialise(AlexNet(3, (4, 4, 4, 4, 4), True, hidden=4), (1, 67, 67, 3), 0)["params"]
    biases = {name: set(leaves["bias"].tolist()) for name, leaves in v.items()}
    positive = {"conv2", "conv4", "conv5", "fc1", "fc2"}
    assert biases == {name: {float(np.float32(0.1))} if name in positive else {0.0} for name in v}


@pytest.mark.parametrize("original", [False, True])
def test_units_are_dropped_in_training_alone(original, random_variables):
    x = images(67)
    module = AlexNet(0, (4, 4, 4, 4, 4), original, hidden=2000)
    v = random_variables(module, x)
    v["params"]["fc2"] = jax.tree.map(jnp.abs, v["params"]["fc2"])  # so that ReLU gives no zero
    trained = jax.jit(lambda v: module.apply(v, x, train=True, rngs={
        "dropout": jax.random.key(0)}))(v)
    dropped = float((trained == 0).mean())
    assert abs(dropped - (0.5 if original else 0.0)) < 0.05  # torchvision drops before fc1, fc2
    plain = jax.jit(module.apply)(v, x)
    assert not (plain == 0).any()
    assert not np.allclose(plain, trained, rtol=0.01)


@pytest.mark.nightly
@pytest.mark.parametrize("original", [False, True])
def test_gradients_are_finite(original, random_variables):
    x = images(67)
    module = AlexNet(3, (4, 4, 4, 4, 4), original, (2.0, 1e-4) if original else None, hidden=16,
                     dropout=0.0)
    v = random_variables(module, x)
    loss = lambda v: -jax.nn.log_softmax(module.apply(v, x, train=True))[:, 1].mean()  # noqa: E731
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(v)):
        assert jnp.isfinite(leaf).all() and jnp.abs(leaf).max() > 0, path
