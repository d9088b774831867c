"""DenseNet: what parity does not see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgcls_jax import tree
from imgcls_jax.models.densenet import TORCH, DenseLayer, DenseNet
from imgcls_jax.pretrained import names
from tests import abstract


def images(size, channels=3, batch=4):
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, size, size, channels)).astype(np.float32)


def small(**options):
    return DenseNet(3, (1, 1), growth=4, width=6, **{"norm_group": 2, **options})


def gradient(module, v, x):
    def loss(params):
        y, state = module.apply({**v, "params": params}, x, train=True, mutable=["batch_stats"])
        return -jax.nn.log_softmax(y)[:, 1].mean(), state

    return jax.jit(jax.grad(loss, has_aux=True))(v["params"])


@pytest.mark.nightly
def test_gradients_are_finite_statistics_move_and_remat_changes_nothing(random_variables):
    x = images(16, channels=1)
    v = random_variables(small(), x)
    gradients, state = gradient(small(), v, x)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert jnp.isfinite(leaf).all() and jnp.abs(leaf).max() > 0, path
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state["batch_stats"], v["batch_stats"])
    assert all(jax.tree.leaves(moved))
    module = small(remat=True)
    assert "remat" in str(jax.make_jaxpr(jax.grad(lambda p: module.apply(
        {**v, "params": p}, x, train=True, mutable=["batch_stats"])[0].sum()))(v["params"]))
    again = gradient(module, v, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
                 again, (gradients, state))


def test_channels_grow_by_the_layer_and_halve_between_blocks():
    x = jax.ShapeDtypeStruct((2, 50, 70, 3), jnp.float32)
    module = DenseNet(0, (2, 3, 1), growth=4, width=6, bottleneck=3, compression=0.5)
    features, v = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
    v = v["params"]
    assert v["block1_layer2"]["conv1"]["kernel"].shape == (1, 1, 6 + 4, 3 * 4)
    assert v["block1_layer2"]["conv2"]["kernel"].shape == (3, 3, 3 * 4, 4)
    assert v["transition1"]["conv"]["kernel"].shape == (1, 1, 14, 7)
    assert v["transition2"]["conv"]["kernel"].shape == (1, 1, 19, 9)
    assert features.shape == (2, 13) and "head" not in v


@pytest.mark.daily(1)
@pytest.mark.parametrize("train, share", [(True, 0.3), (False, 0.0)])
def test_units_of_a_layer_are_dropped_in_training_alone(train, share, random_variables):
    module = DenseLayer(16, 4, 0.3, None, jnp.float32)
    maps = (images(12), images(12, channels=5))
    v = jax.tree.map(lambda s: np.full(s.shape, 0.5, np.float32), jax.eval_shape(
        lambda: module.init(jax.random.key(0), maps, False)))
    y, _ = jax.jit(lambda v: module.apply(v, maps, train, rngs={"dropout": jax.random.key(0)},
                                          mutable=["batch_stats"]))(v)
    assert abs(float((y == 0).mean()) - share) < 0.02


def test_names_of_torchvisions_own_files_are_those_of_2017():
    wanted = tree.flatten(abstract.init("densenet121")[1])
    today = names.to_tensors({path: np.empty(leaf.shape, np.float32)
                              for path, leaf in wanted.items()}, TORCH)
    old = {}
    for key, value in today.items():
        for new, before in (("norm1.", "norm.1."), ("norm2.", "norm.2."), ("conv1.", "conv.1."),
                            ("conv2.", "conv.2.")):
            key = key.replace(new, before) if "denselayer" in key else key
        if not key.endswith("num_batches_tracked"):
            old[key] = value
    assert "features.denseblock1.denselayer1.norm.1.running_mean" in old
    found, difference = names.to_variables(old, wanted, TORCH)
    assert found.keys() == wanted.keys()
    assert not difference, str(difference)
