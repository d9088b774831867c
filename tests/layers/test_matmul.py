"""The product whose backward pass suits a CPU, beside the plain one."""

import jax
import numpy as np
import pytest

from imgcls_jax.layers.matmul import WIDE, _plain, matmul


@pytest.mark.parametrize("width, features", [(3, 5), (5, 3), (3, WIDE), (WIDE, 3)])
def test_gradients_are_those_of_the_plain_product(width, features):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, kernel, dy = (rng.normal(size=shape) for shape in (
            (7, width), (width, features), (7, features)))
        y, back = jax.vjp(matmul, x, kernel)
        np.testing.assert_allclose(y, x @ kernel, rtol=1e-12)
        for found, expected in zip(jax.jit(back)(dy), (dy @ kernel.T, x.T @ dy), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)
        for found, expected in zip(back(dy), jax.jit(_plain)(x, kernel, dy), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)


def test_rows_may_stand_in_several_dimensions():
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        x, kernel, dy = (rng.normal(size=shape) for shape in ((2, 3, 4), (4, 6), (2, 3, 6)))
        y, back = jax.vjp(matmul, x, kernel)
        np.testing.assert_allclose(y, np.einsum("abk,kc->abc", x, kernel), rtol=1e-12)
        dx, dkernel = jax.jit(back)(dy)
        np.testing.assert_allclose(dx, np.einsum("abc,kc->abk", dy, kernel), rtol=1e-12)
        np.testing.assert_allclose(dkernel, np.einsum("abk,abc->kc", x, dy), rtol=1e-12)
