"""Inception v3: the auxiliary head, and what parity does not see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgcls_jax import tree
from imgcls_jax.errors import ConfigError
from imgcls_jax.init import initialise
from imgcls_jax.models import MODELS
from imgcls_jax.models.inception import TORCH, Auxiliary, InceptionV3
from imgcls_jax.pretrained import names
from tests import abstract


def images(size, channels=3, batch=4):
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, size, size, channels)).astype(np.float32)


def shapes(module, size=299, channels=3):
    x = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), x)


def small(**options):
    options = {"norm_group": 2, "blocks": ("7b",), **options}
    return InceptionV3(3, dropout=0.0, divide=16, **options)


def test_auxiliary_logits_are_sown_in_training_alone():
    module = small(blocks=("6e",))
    x = jax.ShapeDtypeStruct((2, 299, 299, 3), jnp.float32)
    v = shapes(module)
    assert set(v) == {"params", "batch_stats"}

    def apply(train):
        return jax.eval_shape(lambda v, x: module.apply(
            v, x, train=train, mutable=["batch_stats", "aux_logits"],
            rngs={"dropout": jax.random.key(0)}), v, x)[1].get("aux_logits")

    assert apply(True)["aux1"][0].shape == (2, 3)
    assert not apply(False)


def test_auxiliary_head_equals_numpy():
    x = images(20, channels=6)
    module = Auxiliary(3, 64, None, jnp.float32)
    v = jax.eval_shape(lambda: module.init(jax.random.key(0), x, False))
    v = jax.tree.map(lambda s: np.random.default_rng(s.size).uniform(-0.5, 1, s.shape), v)
    for stats in v["batch_stats"].values():
        stats["norm"]["var"] += 1

    def unit(name, y):
        p, stats = v["params"][name], v["batch_stats"][name]["norm"]
        rows, columns = p["conv"]["kernel"].shape[:2]
        windows = np.lib.stride_tricks.sliding_window_view(y, (rows, columns), (1, 2))
        y = np.einsum("bhwcij,ijcd->bhwd", windows, p["conv"]["kernel"])
        y = (y - stats["mean"]) / np.sqrt(stats["var"] + 1e-3)
        return np.maximum(y * p["norm"]["scale"] + p["norm"]["bias"], 0)

    windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), (1, 2))[:, ::3, ::3]
    y = unit("conv1", unit("conv0", windows.mean((-1, -2)))).mean((1, 2))
    expected = y @ v["params"]["head"]["kernel"] + v["params"]["head"]["bias"]
    np.testing.assert_allclose(module.apply(v, x, False), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.nightly
def test_any_size_makes_the_auxiliary_head_and_training_says_what_it_needs():
    module = MODELS.get("inception_v3")(7)
    v = shapes(module, 75)
    assert jax.tree.map(lambda leaf: leaf.shape, v) == jax.tree.map(
        lambda leaf: leaf.shape, shapes(module, 299))

    def train(size, aux):
        return jax.eval_shape(lambda v, x: MODELS.get("inception_v3")(7, aux=aux).apply(
            v, x, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)})[0],
            v, jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32))

    with pytest.raises(ConfigError, match="map of 17x17, not 16x16"):
        train(298, True)
    assert train(75, False).shape == (2, 7)


def test_images_under_75_pixels_are_refused():
    halving = small(blocks=("6a", "7a"))
    assert shapes(halving, 75)
    with pytest.raises(ConfigError, match="does not fit"):
        shapes(halving, 74)


@pytest.mark.parametrize("aux", [False, True])
def test_a_file_may_hold_an_auxiliary_head_that_the_model_leaves_out(aux):
    def leaves(aux):
        flat = tree.flatten(abstract.init("inception_v3", aux=aux)[1])
        return {path: np.empty(leaf.shape, np.float32) for path, leaf in flat.items()}

    file = names.to_tensors(leaves(True), TORCH)
    assert "AuxLogits.conv1.bn.running_var" in file and "AuxLogits.fc.bias" in file
    found, difference = names.to_variables(file, leaves(aux), TORCH)
    assert found.keys() == leaves(aux).keys() and not difference.only_found, str(difference)


def test_the_auxiliary_head_starts_small():
    v = initialise(InceptionV3(1000, blocks=("6e",)), (1, 75, 75, 3), 0)["params"]
    assert abs(v["auxiliary1"]["head"]["kernel"].std() - 0.001) < 1e-4
    assert abs(v["head"]["kernel"].std() - 0.1) < 0.01


@pytest.mark.nightly
def test_gradients_are_finite_statistics_move_and_remat_changes_nothing(random_variables):
    x = images(75, channels=1)
    v = random_variables(small(), x)

    def gradient(module):
        def loss(params):
            y, state = module.apply({**v, "params": params}, x, train=True, mutable=["batch_stats"])
            return -jax.nn.log_softmax(y)[:, 1].mean(), state

        return jax.jit(jax.grad(loss, has_aux=True))(v["params"])

    gradients, state = gradient(small())
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert jnp.isfinite(leaf).all() and jnp.abs(leaf).max() > 0, path
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state["batch_stats"], v["batch_stats"])
    assert all(jax.tree.leaves(moved))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
                 gradient(small(remat=True)), (gradients, state))


def test_units_before_the_head_are_dropped_in_training_alone(random_variables):
    module = InceptionV3(0, blocks=("5b",), divide=1, dropout=0.5)
    x = jax.ShapeDtypeStruct((2, 75, 75, 3), jnp.float32)
    features, v = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
    assert features.shape == (2, 256) and "head" not in v["params"]
    for train in (False, True):
        text = str(jax.make_jaxpr(lambda v, x, train=train: module.apply(
            v, x, train=train, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}))(v, x))
        assert ("random_bits" in text) == train
