"""BatchNorm against flax, against numpy, and on eight devices."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imgcls_jax.errors import ConfigError
from imgcls_jax.layers import norm
from imgcls_jax.layers.conv import Product
from imgcls_jax.layers.norm import BatchNorm
from imgcls_jax.layers.pool import max_pool


def images(batch=16, dtype=np.float32):
    return np.random.default_rng(0).normal(2, 3, (batch, 4, 4, 5)).astype(dtype)


def variables(dtype=np.float32):
    rng = np.random.default_rng(1)
    draw = lambda low: rng.uniform(low, 2, 5).astype(dtype)  # noqa: E731
    return {"params": {"scale": draw(-1), "bias": draw(-1)},
            "batch_stats": {"mean": draw(-1), "var": draw(0.1)}}


@functools.partial(jax.jit, static_argnums=0)
def train(module, v, x):
    return module.apply(v, x, train=True, mutable=["batch_stats"])


def test_whole_batch_equals_flax_but_for_the_unbiased_running_variance():
    ours, theirs = BatchNorm(), nn.BatchNorm(momentum=0.9, epsilon=1e-5)
    v, x = variables(), images()

    def flax_train(v, x):
        return theirs.apply(v, x, use_running_average=False, mutable=["batch_stats"])

    weight = images()[::-1]

    @functools.partial(jax.jit, static_argnums=0)
    def with_gradient(apply, x):
        def weighted(x):
            found = apply(v, x)
            return (found[0] * weight).sum(), found

        return jax.grad(weighted, has_aux=True)(x)

    gradient, (y, state) = with_gradient(functools.partial(train, ours), x)
    expected_gradient, (expected, expected_state) = with_gradient(flax_train, x)
    np.testing.assert_allclose(y, expected, atol=2e-6)
    stats, expected = state["batch_stats"], expected_state["batch_stats"]
    np.testing.assert_allclose(stats["mean"], expected["mean"], rtol=1e-5)
    # Ours takes the unbiased variance, as torch does.
    biased = 0.1 * x.var((0, 1, 2))
    np.testing.assert_allclose(stats["var"], expected["var"] + biased / (x[..., 0].size - 1),
                               rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-4)
    np.testing.assert_allclose(*jax.jit(lambda v, x: (
        ours.apply(v, x), theirs.apply(v, x, use_running_average=True)))(v, x), atol=2e-6)


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
    with pytest.raises(ConfigError, match=f"norm_group={group} .*batch of 16") as error:
        train(BatchNorm(group=group), variables(), images())
    assert f"use a batch of {sizes} examples" in error.value.fix


def test_eight_devices_give_the_numbers_of_one_and_groups_inside_shards_do_not_communicate():
    with jax.enable_x64(True):
        v, x = variables(np.float64), images(64, np.float64)
        module = BatchNorm(group=8, dtype="float64")
        expected, expected_state = train(module, v, x)
        mesh = Mesh(np.array(jax.devices()), "data")
        sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
        y, state = train(module, v, sharded)
        # An output near 0 is a difference of numbers near 1: its error is relative to those.
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-14)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12),
                     state, expected_state)
        program = jax.jit(lambda x: train(module, v, x)[0]).lower(sharded).compile().as_text()
        assert not [op for op in ("all-reduce", "all-gather", "all-to-all", "collective-permute")
                    if op in program]


def product(dtype, batch=16, channels=3, features=8):
    """A 1x1 convolution that widens, its weights and those of a BatchNorm behind it."""
    rng = np.random.default_rng(2)
    x = rng.normal(1, 2, (batch, 4, 4, channels)).astype(dtype)
    kernel = rng.normal(size=(channels, features)).astype(dtype)
    v = {"params": {"scale": rng.uniform(-1, 2, features), "bias": rng.normal(size=features)},
         "batch_stats": {"mean": rng.normal(size=features), "var": rng.uniform(0.1, 2, features)}}
    wide = np.promote_types(dtype, np.float32)
    return x, kernel, jax.tree.map(lambda leaf: leaf.astype(wide), v)


@pytest.mark.parametrize("group", [None, 4])
def test_a_product_is_normalised_as_if_it_were_written_out(group):
    """Outputs, running statistics and all gradients, in f64."""
    with jax.enable_x64(True):
        x, kernel, v = product(np.float64)
        norm = BatchNorm(group, dtype="float64")
        weight = np.random.default_rng(3).normal(size=(*x.shape[:-1], 8))

        def result(factored, x, kernel, params):
            made = Product(x, kernel) if factored else x @ kernel
            y, state = norm.apply({**v, "params": params}, made, train=True,
                                  mutable=["batch_stats"])
            return (y * weight).sum(), (y, state)

        run = jax.jit(jax.grad(result, (1, 2, 3), has_aux=True), static_argnums=0)
        ours, theirs = (run(factored, x, kernel, v["params"]) for factored in (True, False))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10),
                     ours, theirs)
        np.testing.assert_allclose(*jax.jit(lambda v, x, kernel: (
            norm.apply(v, Product(x, kernel)), norm.apply(v, x @ kernel)))(v, x, kernel),
            rtol=1e-12)


def test_statistics_of_a_product_do_not_round_factors_of_f32(monkeypatch):
    """As on an accelerator, whose products take factors of bf16 unless a precision is asked for:
    x of mean 30 and deviation 1, whose variance is a difference of numbers near 900."""
    exact = jax.lax.dot_general

    def rounding(a, b, dimensions, precision=None, preferred_element_type=None):
        if precision is None:
            a, b = (c.astype(jnp.bfloat16).astype(c.dtype) for c in (a, b))
        return exact(a, b, dimensions, precision, preferred_element_type)

    monkeypatch.setattr(norm.lax, "dot_general", rounding)
    monkeypatch.setattr(norm.lax, "platform_dependent", lambda *arguments, default, cpu: default(
        *arguments))
    x, kernel, v = product(np.float32)
    x = (x - x.mean()) / x.std() + 30

    def variance(x, kernel):
        return norm.BatchNorm(momentum=0.0).apply(
            v, Product(x, kernel), train=True, mutable=["batch_stats"])[1]["batch_stats"]["var"]

    count = x.size // x.shape[-1]
    np.testing.assert_allclose(variance(x, kernel), (
        x.astype(np.float64) @ kernel.astype(np.float64)).reshape(count, -1).var(0, ddof=1),
        rtol=1e-3)


@pytest.mark.nightly
def test_a_product_in_bfloat16_is_as_near_to_the_truth_as_the_written_one():
    """Of the output and of each gradient, the error beside f64, relative to its norm."""
    x, kernel, v = product(np.float64, batch=32, channels=16, features=64)
    x, kernel = (np.asarray(jnp.asarray(a, jnp.bfloat16), np.float64) for a in (x, kernel))
    weight = np.random.default_rng(3).normal(size=(*x.shape[:-1], 64))

    def all_of(dtype, factored):
        def result(x, kernel, params):
            made = Product(x, kernel) if factored else x @ kernel
            y, _ = BatchNorm(dtype=dtype).apply({**v, "params": params}, made, train=True,
                                                mutable=["batch_stats"])
            return (y * weight.astype(y.dtype)).astype(jnp.promote_types(dtype, "float32")).sum(), y

        wide = jnp.promote_types(dtype, jnp.float32)
        arguments = (jnp.asarray(x, dtype), jnp.asarray(kernel, dtype),
                     jax.tree.map(lambda a: jnp.asarray(a, wide), v["params"]))
        gradients, y = jax.grad(result, (0, 1, 2), has_aux=True)(*arguments)
        return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves((y, gradients))]

    with jax.enable_x64(True):
        truth = all_of("float64", False)
    ours, theirs = all_of("bfloat16", True), all_of("bfloat16", False)
    for a, b, exact in zip(ours, theirs, truth, strict=True):
        error, usual = (np.linalg.norm(c - exact) / np.linalg.norm(exact) for c in (a, b))
        # 2^-8: one rounding to bfloat16. The two round at different places: hence a half more.
        assert error < max(1.5 * usual, 2**-8), (error, usual)


@pytest.mark.daily(1)
@pytest.mark.parametrize("training", [True, False])
def test_maxima_may_be_taken_before_normalising(training):
    """Scales of either sign; statistics of the whole, gradients too, in f64."""
    pool = functools.partial(max_pool, size=3, stride=2, padding=1)
    with jax.enable_x64(True):
        v, x = variables(np.float64), images(dtype=np.float64)
        assert (v["params"]["scale"] < 0).any()
        norm = BatchNorm(8, dtype="float64")

        def result(first, x, params):
            made = {**v, "params": params}
            if first:
                y = norm.apply(made, x, training, pool, mutable=["batch_stats"])
            else:
                y, state = norm.apply(made, x, training, mutable=["batch_stats"])
                y = pool(nn.relu(y)), state
            return (y[0] * np.arange(5)).sum(), y

        run = jax.jit(jax.grad(result, (1, 2), has_aux=True), static_argnums=0)
        ours, theirs = (run(first, x, v["params"]) for first in (True, False))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
                     ours, theirs)
