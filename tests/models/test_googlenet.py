"""GoogLeNet: branches, auxiliary heads and their names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgcls_jax import tree
from imgcls_jax.models import MODELS
from imgcls_jax.models.googlenet import TORCHVISION, Auxiliary, GoogLeNet
from imgcls_jax.pretrained import names
from tests import abstract


def images(size, channels=3, batch=4):
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, size, size, channels)).astype(np.float32)


def small(**options):
    options = {"blocks": ("4a",), "dropout": 0.0, "norm_group": 2, **options}
    return GoogLeNet(3, divide=16, **options)


def shapes(module, size=224, channels=3):
    x = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), x)


def count(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def test_the_papers_network_has_kernels_of_5_and_no_batch_norm():
    _, v = abstract.init("googlenet_5x5", normalise=False)
    assert count(v) == 6_998_552 and set(v) == {"params"}
    assert v["params"]["inception3a"]["conv5x5"]["conv"]["kernel"].shape[:2] == (5, 5)


def test_with_both_auxiliary_heads_there_are_13_million_parameters():
    assert count(abstract.init("googlenet", aux=True)[1]) == 13_004_888  # torchvision's


def test_auxiliary_logits_are_sown_in_training_alone():
    module = small(aux=True, blocks=("4a", "4d"))
    x = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    v = shapes(module)
    assert set(v) == {"params", "batch_stats"}

    def apply(train):
        state = jax.eval_shape(lambda v, x: module.apply(
            v, x, train=train, mutable=["batch_stats", "aux_logits"],
            rngs={"dropout": jax.random.key(0)}), v, x)[1]
        return {name: leaf[0].shape for name, leaf in state.get("aux_logits", {}).items()}

    assert apply(True) == {"aux1": (2, 3), "aux2": (2, 3)}
    assert not apply(False)


def test_auxiliary_head_equals_numpy(random_variables):
    x = images(14, channels=6)
    module = Auxiliary(3, True, None, jnp.float32, width=5, hidden=7)
    v = jax.tree.map(lambda s: np.random.default_rng(s.size).uniform(-0.5, 1, s.shape), shapes_of(
        module, x))
    v["batch_stats"]["project"]["norm"]["var"] += 1
    p, stats = v["params"], v["batch_stats"]["project"]["norm"]
    cells = [slice(0, 4), slice(3, 7), slice(7, 11), slice(10, 14)]
    y = np.stack([np.stack([x[:, r, c].mean((1, 2)) for c in cells], 1) for r in cells], 1)
    y = y @ p["project"]["conv"]["kernel"][0, 0]
    norm = p["project"]["norm"]
    y = (y - stats["mean"]) / np.sqrt(stats["var"] + 1e-3) * norm["scale"] + norm["bias"]
    y = np.maximum(y, 0).transpose(0, 3, 1, 2).reshape(4, -1)
    y = np.maximum(y @ p["hidden"]["kernel"] + p["hidden"]["bias"], 0)
    expected = y @ p["head"]["kernel"] + p["head"]["bias"]
    np.testing.assert_allclose(module.apply(v, x, False), expected, rtol=1e-4, atol=1e-5)


def shapes_of(module, x):
    return jax.eval_shape(lambda: module.init(jax.random.key(0), x, False))


@pytest.mark.parametrize("aux", [False, True])
def test_torchvisions_file_holds_auxiliary_heads_that_a_model_may_leave_out(aux):
    def leaves(aux):
        flat = tree.flatten(abstract.init("googlenet", aux=aux)[1])
        return {path: np.empty(leaf.shape, np.float32) for path, leaf in flat.items()}

    file = names.to_tensors(leaves(True), TORCHVISION)
    assert "aux2.conv.bn.running_var" in file and "aux1.fc2.bias" in file
    found, difference = names.to_variables(file, leaves(aux), TORCHVISION)
    assert found.keys() == leaves(aux).keys() and not difference.only_found, str(difference)


@pytest.mark.nightly
def test_gradients_are_finite_statistics_move_and_remat_changes_nothing(random_variables):
    x = images(16, channels=1)
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


@pytest.mark.daily(1)
@pytest.mark.parametrize("size", [15, 224])  # 15: the least, as torch pools
def test_features_are_1024(size):
    module = MODELS.get("googlenet")(0, aux=True)
    x = jax.ShapeDtypeStruct((2, size, size, 1), jnp.float32)
    features, v = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
    assert features.shape == (2, 1024) and not {"head", "auxiliary1"} & set(v["params"])


def test_units_are_dropped_in_training_alone():
    module = small(aux=True, blocks=("4a", "4d"), dropout=0.2)
    v = shapes(module)
    for train, draws in ((False, 0), (True, 3)):  # before the head, and in the auxiliary heads
        text = str(jax.make_jaxpr(lambda v, x, train=train: module.apply(
            v, x, train=train, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}))(
                v, jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)))
        assert text.count("name=_bernoulli") == draws
