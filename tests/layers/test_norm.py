"""BatchNorm against flax, against numpy, and on eight devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imgcls_jax.errors import ConfigError
from imgcls_jax.layers.norm import BatchNorm


def images(batch=16, dtype=np.float32):
    return np.random.default_rng(0).normal(2, 3, (batch, 4, 4, 5)).astype(dtype)


def variables(dtype=np.float32):
    rng = np.random.default_rng(1)
    draw = lambda low: rng.uniform(low, 2, 5).astype(dtype)  # noqa: E731
    return {"params": {"scale": draw(-1), "bias": draw(-1)},
            "batch_stats": {"mean": draw(-1), "var": draw(0.1)}}


def train(module, v, x):
    return module.apply(v, x, train=True, mutable=["batch_stats"])


def test_whole_batch_equals_flax_but_for_the_unbiased_running_variance():
    ours, theirs = BatchNorm(), nn.BatchNorm(momentum=0.9, epsilon=1e-5)
    v, x = variables(), images()

    def flax_train(v, x):
        return theirs.apply(v, x, use_running_average=False, mutable=["batch_stats"])

    y, state = train(ours, v, x)
    expected, expected_state = flax_train(v, x)
    np.testing.assert_allclose(y, expected, atol=2e-6)
    stats, expected = state["batch_stats"], expected_state["batch_stats"]
    np.testing.assert_allclose(stats["mean"], expected["mean"], rtol=1e-5)
    # Ours takes the unbiased variance, as torch does.
    biased = 0.1 * x.var((0, 1, 2))
    np.testing.assert_allclose(stats["var"], expected["var"] + biased / (x[..., 0].size - 1),
                               rtol=1e-5)
    weight = images()[::-1]
    gradient = jax.grad(lambda x: (train(ours, v, x)[0] * weight).sum())(x)
    np.testing.assert_allclose(
        gradient, jax.grad(lambda x: (flax_train(v, x)[0] * weight).sum())(x), atol=1e-4)
    np.testing.assert_allclose(ours.apply(v, x), theirs.apply(v, x, use_running_average=True),
                               atol=2e-6)


def test_a_group_has_its_own_statistics_and_running_ones_average_the_groups():
    with jax.enable_x64(True):
        v, x = variables(np.float64), images(dtype=np.float64)
        y, state = train(BatchNorm(group=4, dtype="float64"), v, x)
        groups = x.reshape(4, 4, 4, 4, 5)
        mean = groups.mean((1, 2, 3), keepdims=True)
        var = groups.var((1, 2, 3), keepdims=True)
        expected = (groups - mean) / np.sqrt(var + 1e-5) * v["params"]["scale"]
        np.testing.assert_allclose(y, (expected + v["params"]["bias"]).reshape(x.shape), rtol=1e-9)
        for name, statistic in (("mean", mean), ("var", groups.var((1, 2, 3), ddof=1))):
            np.testing.assert_allclose(
                state["batch_stats"][name],
                0.9 * v["batch_stats"][name] + 0.1 * statistic.reshape(4, 5).mean(0), rtol=1e-12)


def test_bfloat16_output_has_statistics_in_float32():
    y, state = train(BatchNorm(dtype="bfloat16"), variables(), images().astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {jnp.dtype("float32")}


def test_a_constant_channel_with_a_large_value_stays_finite():
    y, state = train(BatchNorm(), variables(), np.full((8, 4, 4, 5), 12345.678, np.float32))
    assert np.isfinite(y).all()
    assert (np.asarray(state["batch_stats"]["var"]) >= 0).all()


@pytest.mark.parametrize("group, sizes", [(6, "12 or 18"), (32, "32")])
def test_a_group_that_does_not_divide_the_batch_says_which_sizes_would(group, sizes):
    with pytest.raises(ConfigError, match=f"{group} examples.*batch of 16") as error:
        train(BatchNorm(group=group), variables(), images())
    assert f"use a batch of {sizes} examples" in error.value.fix


def test_eight_devices_give_the_numbers_of_one_and_groups_inside_shards_do_not_communicate():
    with jax.enable_x64(True):
        v, x = variables(np.float64), images(64, np.float64)
        module = BatchNorm(group=8, dtype="float64")
        expected, expected_state = jax.jit(lambda x: train(module, v, x))(x)
        mesh = Mesh(np.array(jax.devices()), "data")
        sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
        y, state = jax.jit(lambda x: train(module, v, x))(sharded)
        # An output near 0 is a difference of numbers near 1: its error is relative to those.
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-14)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12),
                     state, expected_state)
        program = jax.jit(lambda x: train(module, v, x)[0]).lower(sharded).compile().as_text()
        assert not [op for op in ("all-reduce", "all-gather", "all-to-all", "collective-permute")
                    if op in program]
