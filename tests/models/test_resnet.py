"""ResNet against the network written out in numpy, and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgcls_jax.errors import ConfigError
from imgcls_jax.models.resnet import ResNet, resnet20, resnext50_32x4d
from tests.models import training


def conv(x, kernel, stride):
    rows, columns = kernel.shape[:2]
    x = np.pad(x, ((0, 0), (rows // 2,) * 2, (columns // 2,) * 2, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (rows, columns), (1, 2))
    return np.einsum("bhwcij,ijcd->bhwd", windows[:, ::stride, ::stride], kernel)


def max_pool(x):
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::2, ::2].max((-1, -2))


def numpy_bottleneck_resnet(v, x):
    """ResNet v1.5 of one bottleneck a stage, in evaluation."""
    def unit(name, x, stride=1, path=()):
        params, stats = v["params"], v["batch_stats"]
        for key in path:
            params, stats = params[key], stats[key]
        prefix = "shortcut_" if name == "shortcut" else "stem_" if name == "stem" else ""
        number = name if not prefix else ""
        norm, stat = params[f"{prefix}norm{number}"], stats[f"{prefix}norm{number}"]
        x = conv(x, params[f"{prefix}conv{number}"]["kernel"], stride)
        return (x - stat["mean"]) / np.sqrt(stat["var"] + 1e-5) * norm["scale"] + norm["bias"]

    relu = lambda x: np.maximum(x, 0)  # noqa: E731
    x = max_pool(relu(unit("stem", x, 2)))
    for stage in (1, 2, 3, 4):
        path, stride = (f"stage{stage}_block0",), 1 if stage == 1 else 2
        y = relu(unit("1", x, 1, path))
        y = unit("3", relu(unit("2", y, stride, path)), 1, path)
        x = relu(unit("shortcut", x, stride, path) + y)
    head = v["params"]["head"]
    return x.mean((1, 2)) @ head["kernel"] + head["bias"]


def test_bottleneck_network_equals_numpy(random_variables):
    with jax.enable_x64(True):
        x = np.random.default_rng(0).normal(size=(2, 40, 33, 3))
        module = ResNet(7, (1, 1, 1, 1), bottleneck=True, width=4, dtype="float64")
        v = random_variables(module, x)
        expected = numpy_bottleneck_resnet(v, x)
        np.testing.assert_allclose(jax.jit(module.apply)(v, x), expected, rtol=1e-9)


def test_with_zero_init_what_enters_a_block_leaves_it():
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    module = ResNet(0, (1, 1), width=4, stem="cifar", shortcut="pad", zero_init=True)
    features, v = jax.jit(module.init_with_output)(jax.random.key(0), x)
    stem = conv(x, np.asarray(v["params"]["stem_conv"]["kernel"]), 1) / np.sqrt(1 + 1e-5)
    expected = np.maximum(stem, 0)[:, ::2, ::2].mean((1, 2))
    np.testing.assert_allclose(features[:, 2:6], expected, rtol=1e-5)
    np.testing.assert_array_equal(np.delete(features, slice(2, 6), 1), 0)


def test_gradients_are_finite_and_statistics_move(random_variables):
    module = ResNet(10, (2, 1), width=8, stem="cifar", shortcut="pad", norm_group=4)
    x = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype(np.float32)
    v = random_variables(module, x)

    @jax.jit
    def gradient(params):
        def loss(params):
            y, state = module.apply({**v, "params": params}, x, train=True, mutable=["batch_stats"])
            return -jax.nn.log_softmax(y)[:, 3].mean(), state

        return jax.grad(loss, has_aux=True)(params)

    gradients, state = gradient(v["params"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert jnp.isfinite(leaf).all() and jnp.abs(leaf).max() > 0, path
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state["batch_stats"], v["batch_stats"])
    assert all(jax.tree.leaves(moved))


def test_paths_drop_in_training_alone_by_the_linear_rule(random_variables):
    x = training.images(4, 8, 8, 1)
    module = resnet20(0, width=4, drop_path=1.0)
    assert training.drop_path_rates(module, x) == [i / 8 for i in range(9)]
    module = ResNet(0, (2, 1), width=4, stem="cifar", shortcut="pad", drop_path=1.0)
    v = random_variables(module, x)
    dropped, _ = jax.jit(lambda v: module.apply(
        v, x, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}))(v)
    np.testing.assert_array_equal(dropped[:, [0, 1, 6, 7]], 0)  # of the last block, the shortcut
    kept = jax.jit(module.apply)(v, x)
    assert (kept[:, [0, 1, 6, 7]] > 0).any()


@pytest.mark.nightly
def test_remat_changes_neither_names_nor_numbers(random_variables):
    def build(remat):
        return ResNet(3, (2, 1), True, 4, stem="cifar", drop_path=0.5, remat=remat)

    x = training.images(4, 8, 8, 3)
    training.assert_remat_changes_nothing(build, random_variables(build(False), x), x)


def test_a_group_of_a_resnext_sees_its_own_channels_alone(random_variables):
    with jax.enable_x64(True):
        x = np.random.default_rng(0).normal(size=(2, 16, 16, 3))
        grouped = ResNet(0, (1,), True, 4, groups=2, inner=2, dtype="float64")
        v = random_variables(grouped, x)
        kernel = np.zeros((3, 3, 8, 8))
        for part in (slice(0, 4), slice(4, 8)):
            kernel[:, :, :, part][:, :, part] = v["params"]["stage1_block0"]["conv2"]["kernel"][
                ..., part]
        whole = jax.tree.map(lambda leaf: leaf, v)
        whole["params"]["stage1_block0"]["conv2"]["kernel"] = kernel
        dense = ResNet(0, (1,), True, 4, inner=2, dtype="float64")
        np.testing.assert_allclose(jax.jit(grouped.apply)(v, x), jax.jit(dense.apply)(whole, x),
                                   rtol=1e-10)


def test_a_width_that_does_not_divide_into_groups_says_which_would():
    with pytest.raises(ConfigError) as error:
        jax.eval_shape(resnext50_32x4d(10, width=24).init, jax.random.key(0), np.ones((1, 8, 8, 3)))
    assert error.value.fix == "use a multiple of 16"
