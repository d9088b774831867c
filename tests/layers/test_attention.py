"""Attention with its own backward pass, beside the plain formula and its automatic derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgcls_jax.layers import attention


def plain(q, k, v):
    scores = jnp.einsum("bqhd,bnhd->bhqn", q, k) * q.shape[-1] ** -0.5
    return jnp.einsum("bhqn,bnhd->bqhd", jax.nn.softmax(scores), v)


def qkv(dtype, queries=7, scale=1.0):
    rng = np.random.default_rng(0)
    return [jnp.asarray(scale * rng.normal(size=(3, n, 2, 8)), dtype) for n in (queries, 7, 7)]


@pytest.mark.daily(1)
@pytest.mark.parametrize("queries", [7, 1])
def test_values_and_gradients_are_those_of_the_formula(queries):
    with jax.enable_x64(True):
        arguments = qkv("float64", queries)
        weight = np.random.default_rng(1).normal(size=arguments[0].shape)
        ours, theirs = (jax.jit(jax.value_and_grad(
            lambda *a, f=f: (f(*a) * weight).sum(), (0, 1, 2)))(*arguments)
            for f in (attention.attend, plain))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12),
                     ours, theirs)


def test_a_bias_is_that_of_the_window_and_has_its_gradient():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        q, k, v = rng.normal(size=(3, 4, 7, 2, 8))  # two images of two windows each
        bias, weight = rng.normal(size=(2, 2, 7, 7)), rng.normal(size=q.shape)

        def formula(q, k, v, bias):
            scores = jnp.einsum("bqhd,bnhd->bhqn", q, k) * 0.7 + jnp.tile(bias, (2, 1, 1, 1))
            return jnp.einsum("bhqn,bnhd->bqhd", jax.nn.softmax(scores), v)

        ours, theirs = (jax.jit(jax.value_and_grad(
            lambda *a, f=f: (f(*a) * weight).sum(), (0, 1, 2, 3)))(q, k, v, bias)
            for f in (lambda *a: attention.attend(*a, 0.7), formula))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12),
                     ours, theirs)


def test_cosines_have_no_length_and_a_factor_of_at_most_a_hundred(random_variables):
    module = attention.CosineAttention(2, "float32", jax.nn.initializers.normal(0.02))
    x = np.random.default_rng(0).normal(size=(3, 7, 16)).astype(np.float32)
    v = random_variables(module, x)["params"]
    run = jax.jit(lambda **changes: module.apply({"params": {**v, **changes}}, x))
    qkv = {"kernel": v["qkv"]["kernel"].copy(), "bias": v["qkv"]["bias"].copy()}
    qkv["kernel"][:, :16] *= 3  # of the queries
    qkv["bias"][:16] *= 3
    qkv["bias"][16:32] += 1  # of the keys, which have none
    np.testing.assert_allclose(run(qkv=qkv), run(), rtol=1e-4, atol=1e-5)
    limit, above, below = (run(logit_scale=np.full(2, np.log(n), "f4")) for n in (100, 200, 50))
    np.testing.assert_allclose(limit, above, rtol=1e-5, atol=1e-5)
    assert np.abs(limit - below).max() > 1e-3


@pytest.mark.parametrize("count", [1, 2])
def test_parts_computed_anew_change_neither_names_nor_numbers_and_are_not_kept(
        count, random_variables):
    with jax.enable_x64(True):
        x = np.random.default_rng(0).normal(size=(3, 7, 16))
        plain, recomputed = (attention.SelfAttention(2, "float64", recomputed=n)
                             for n in (0, count))
        variables = random_variables(plain, x)
        weight = np.random.default_rng(1).normal(size=x.shape)

        def loss(module):
            return lambda v, x: (module.apply(v, x) * weight).sum()

        one, other = (jax.jit(jax.value_and_grad(loss(module), (0, 1)))(variables, x)
                      for module in (plain, recomputed))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12),
                     one, other)
        kept = [sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(
            lambda v, x, module=module: jax.vjp(loss(module), v, x)[1], variables, x)))
            for module in (plain, recomputed)]
        assert kept[0] - kept[1] >= count * (x.size - 16)  # biases take their place


def test_scores_of_hundreds_do_not_overflow():
    q, k, v = qkv("float32", scale=30.0)
    scores = np.einsum("bqhd,bnhd->bhqn", q, k)
    assert scores.max() > 1000
    gradient = jax.jit(jax.grad(lambda q: attention.attend(q, k, v).sum()))(q)
    np.testing.assert_allclose(*jax.jit(lambda *qkv: (attention.attend(*qkv), plain(*qkv)))(
        q, k, v), rtol=1e-3, atol=1e-3)
    assert np.isfinite(gradient).all()


def test_the_form_that_computes_scores_twice_gives_the_same():
    q, k, _ = qkv("float32")
    for a, b in zip(attention._once(q, k), jax.jit(attention._twice)(q, k), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_in_bfloat16_the_error_is_that_of_rounding():
    q, k, v = qkv("bfloat16")
    exact = plain(*(a.astype(jnp.float32) for a in (q, k, v)))
    error = np.abs(np.asarray(attention.attend(q, k, v), np.float32) - exact)
    assert error.max() < 2**-7 * np.abs(exact).max()
