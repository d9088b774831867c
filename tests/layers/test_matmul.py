"""The product whose backward pass suits a CPU, beside the plain one."""

import jax
import numpy as np
import pytest

from imgcls_jax.layers.matmul import _plain, matmul


@pytest.mark.parametrize("width, features", [(3, 5), (5, 3)])
def test_gradients_are_those_of_the_plain_product(width, features):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, kernel, dy = (rng.normal(size=shape) for shape in (
            (7, width), (width, features), (7, features)))
        y, back = jax.vjp(matmul, x, kernel)
        np.testing.assert_allclose(y, x @ kernel, rtol=1e-12)
        for found, expected in zip(jax.jit(back)(dy), (dy @ kernel.T, x.T @ dy), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-12)
        for found, expected in zip(back(dy), _plain(x, kernel, dy), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-12)
