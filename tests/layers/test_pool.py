"""Pooling against loops in numpy that follow torch's documentation."""

import jax.numpy as jnp
import numpy as np
import pytest

from imgcls_jax.errors import ConfigError
from imgcls_jax.layers.pool import adaptive_avg_pool, avg_pool, max_pool


def starts(length, size, stride, padding, ceil):
    """Where windows begin: torch.nn.MaxPool2d, output size with ceil_mode."""
    free = length + 2 * padding - size
    count = (-(-free // stride) if ceil else free // stride) + 1
    if ceil and (count - 1) * stride >= length + padding:
        count -= 1
    return [i * stride - padding for i in range(count)]


def windows(x, size, stride, padding, ceil, reduce):
    rows, columns = (starts(n, size, stride, padding, ceil) for n in x.shape[1:3])
    return np.stack([np.stack([reduce(x[:, max(r, 0):r + size, max(c, 0):c + size])
                               for c in columns], 1) for r in rows], 1)


@pytest.mark.parametrize("length", [7, 8, 13, 14])
@pytest.mark.parametrize("size, stride, padding, ceil", [
    (3, 2, 0, True), (2, 2, 0, True), (3, 1, 1, True), (3, 2, 1, False), (3, 2, 0, False),
    (2, 3, 1, True)])
def test_max_pool(length, size, stride, padding, ceil):
    x = np.random.default_rng(0).normal(size=(2, length, length + 1, 3)).astype(np.float32)
    expected = windows(x, size, stride, padding, ceil, lambda w: w.max((1, 2)))
    np.testing.assert_array_equal(max_pool(x, size, stride, padding=padding, ceil=ceil), expected)


@pytest.mark.parametrize("count_padding", [True, False])
def test_avg_pool(count_padding):
    x = np.random.default_rng(0).normal(size=(2, 7, 8, 3)).astype(np.float32)
    expected = windows(x, 3, 2, 1, False, lambda w: w.sum((1, 2)) / (
        9 if count_padding else w.shape[1] * w.shape[2]))
    y = avg_pool(x, 3, 2, padding=1, count_padding=count_padding)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("length", [6, 7])
def test_avg_pool_over_the_edge_counts_what_is_within(length):
    x = np.random.default_rng(0).normal(size=(2, length, length + 1, 3)).astype(np.float32)
    expected = windows(x, 2, 2, 0, True, lambda w: w.mean((1, 2)))
    np.testing.assert_allclose(avg_pool(x, 2, 2, ceil=True), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("length, size", [(9, 7), (7, 7), (4, 7), (13, 6), (12, 6)])
def test_adaptive_avg_pool(length, size):
    x = np.random.default_rng(0).normal(size=(2, length, length, 3))
    cells = [slice(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
    expected = np.stack([np.stack([x[:, r, c].mean((1, 2)) for c in cells], 1) for r in cells], 1)
    np.testing.assert_allclose(adaptive_avg_pool(jnp.asarray(x, jnp.float32), size), expected,
                               rtol=1e-5, atol=1e-6)


def test_a_window_that_does_not_fit_is_refused_unless_it_may_hang_over():
    x = jnp.ones((1, 2, 2, 1))
    with pytest.raises(ConfigError, match="does not fit into a map of 2x2"):
        max_pool(x, 3, 2)
    assert max_pool(x, 3, 2, ceil=True).shape == (1, 1, 1, 1)  # as torch.nn.MaxPool2d
