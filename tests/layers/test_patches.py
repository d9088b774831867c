"""Patches as a convolution, as on a TPU, beside the product of cut patches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgcls_jax.errors import ConfigError
from imgcls_jax.layers.patches import Patches


def test_the_convolution_is_the_product_in_values_and_gradients():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        images, kernel = rng.normal(size=(2, 8, 12, 3)), rng.normal(size=(48, 5))
        layer = Patches(5, 4, "float64")
        weight = rng.normal(size=(2, 6, 5))
        one, other = (jax.jit(jax.value_and_grad(
            lambda *a, f=f: (f(*a) * weight).sum(), (0, 1)))(images, kernel)
            for f in (layer._convolved, layer._multiplied))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12),
                     one, other)


def test_a_token_is_the_dense_layer_of_one_patch_rows_first():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 8, 12, 3)).astype(np.float32)
    variables = {"params": {"kernel": rng.normal(size=(48, 5)).astype(np.float32),
                            "bias": rng.normal(size=5).astype(np.float32)}}
    tokens = Patches(5, 4, jnp.float32).apply(variables, images)
    patch = images[1, 4:8, 8:12].reshape(-1)  # the last of the second row
    expected = patch @ variables["params"]["kernel"] + variables["params"]["bias"]
    np.testing.assert_allclose(tokens[1, 5], expected, rtol=1e-4)


def test_an_image_that_does_not_divide_is_refused():
    with pytest.raises(ConfigError, match="width of 10 pixels"):
        jax.eval_shape(Patches(5, 4, jnp.float32).init, jax.random.key(0),
                       jnp.zeros((1, 8, 10, 3)))
