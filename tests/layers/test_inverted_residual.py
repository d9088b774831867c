"""How a mobile network's width is rounded, and what its block adds."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from imgcls_jax.layers.conv import Conv
from imgcls_jax.layers.inverted_residual import InvertedResidual, round_channels
from imgcls_jax.layers.norm import BatchNorm


@pytest.mark.parametrize("channels, rounded", [
    (16, 16), (24 * 0.5, 16), (32 * 1.4, 48), (320 * 1.4, 448), (112 * 1.8, 200), (80 * 1.1, 88),
    (24 * 0.75, 24), (32 * 0.35, 16),  # 16 and 8 are as near or nearer, but lose over a tenth
    (1, 8)])
def test_channels_are_multiples_of_eight_that_lose_at_most_a_tenth(channels, rounded):
    assert round_channels(channels) == rounded


@pytest.mark.parametrize("features, stride, adds", [(4, 1, True), (6, 1, False), (4, 2, False)])
def test_the_input_is_added_at_stride_1_between_equal_widths(features, stride, adds):
    """The map has one pixel, so it is as large after a stride of 2 as before."""
    x = np.random.default_rng(0).normal(size=(2, 1, 1, 4)).astype(np.float32)
    module = InvertedResidual(features, 12, 3, stride, 2, nn.relu, Conv, Conv,
                              functools.partial(BatchNorm))
    v = jax.eval_shape(functools.partial(module.init, train=False), jax.random.key(0), x)
    v = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), v)
    v["params"]["project_norm"] = {"scale": np.zeros(features), "bias": np.full(features, 0.5)}
    expected = x + 0.5 if adds else np.full((2, 1, 1, features), 0.5)
    found = jax.jit(functools.partial(module.apply, train=False))(v, x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
