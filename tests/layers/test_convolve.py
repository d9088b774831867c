"""Convolutions in the forms for a CPU, beside XLA's own."""

import functools

import jax
import numpy as np
import pytest

from imgcls_jax.layers import convolve

CASES = {  # images, kernel, stride, padding, groups
    "3x3": ((2, 7, 6, 4), (3, 3, 1, 4), 1, ((1, 1), (1, 1)), 4),
    "stride 2": ((2, 7, 6, 4), (3, 3, 1, 4), 2, ((1, 1), (1, 1)), 4),
    "stride 2, even size": ((2, 8, 8, 4), (5, 5, 1, 4), 2, ((2, 2), (2, 2)), 4),
    "SAME, stride 2": ((2, 8, 7, 4), (3, 3, 1, 4), 2, "SAME", 4),
    "no padding": ((2, 8, 9, 4), (3, 2, 1, 4), 3, ((0, 0), (0, 0)), 4),
    "stride over the kernel": ((2, 9, 9, 4), (1, 1, 1, 4), 2, ((0, 0), (0, 0)), 4),
    "full": ((2, 7, 6, 3), (3, 3, 3, 5), 2, ((1, 1), (1, 1)), 1),
    "full, many channels": ((2, 6, 7, 18), (3, 2, 18, 5), 1, ((1, 1), (1, 0)), 1),
    "full, SAME, stride 3": ((2, 9, 8, 2), (5, 5, 2, 3), 3, "SAME", 1),
    "full, stride over the kernel": ((2, 9, 9, 4), (1, 1, 4, 3), 2, ((0, 0), (0, 0)), 1),
    "full, larger than the map": ((2, 2, 2, 4), (3, 3, 4, 5), 1, ((1, 1), (1, 1)), 1),
    "full, larger than one side": ((2, 8, 3, 4), (2, 5, 4, 3), 1, ((0, 1), (2, 2)), 1),
    "full, larger than what it gives": ((2, 5, 4, 3), (3, 3, 3, 5), 2, ((1, 1), (1, 1)), 1),
    "full, larger, SAME, stride 2": ((2, 2, 1, 3), (5, 5, 3, 2), 2, "SAME", 1),
    "in groups": ((2, 7, 6, 4), (3, 3, 2, 6), 1, ((1, 1), (1, 1)), 2),
    "depthwise, two of each": ((2, 7, 6, 4), (3, 3, 1, 8), 1, ((1, 1), (1, 1)), 4)}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_xla(case):
    images, kernel, stride, padding, groups = CASES[case]
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, w = rng.normal(size=images), rng.normal(size=kernel)
        plain = functools.partial(
            jax.lax.conv_general_dilated, window_strides=(stride, stride), padding=padding,
            feature_group_count=groups, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        ours = functools.partial(convolve.convolve, stride=stride, padding=padding, groups=groups)
        weight = rng.normal(size=jax.eval_shape(plain, x, w).shape)
        one, other = (jax.jit(jax.value_and_grad(lambda *a, f=f: (f(*a) * weight).sum(), (0, 1)))(
            x, w) for f in (ours, plain))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12),
                     one, other)


def test_on_a_cpu_a_depthwise_convolution_is_none_nor_the_gradient_of_a_kernel():
    def convolutions(kernel, groups, size=8):
        x = jax.ShapeDtypeStruct((2, size, size, 4), "float32")
        w = jax.ShapeDtypeStruct(kernel, "float32")
        step = jax.value_and_grad(
            lambda x, w: convolve.convolve(x, w, 1, ((1, 1), (1, 1)), groups).sum(), (0, 1))
        return jax.jit(step).lower(x, w).compile().as_text().count("dim_labels=")

    assert convolutions((3, 3, 1, 4), 4) == 0
    assert convolutions((3, 3, 4, 4), 1) == 2  # the images' gradient is the second
    assert convolutions((3, 3, 4, 4), 1, size=2) == 0  # the kernel is larger than the map


def test_an_image_smaller_than_the_kernel_gives_nothing_as_in_xla():
    x = np.ones((1, 2, 2, 3), np.float32)
    for groups, w in ((3, np.ones((3, 3, 1, 3))), (1, np.ones((3, 3, 3, 3)))):
        given = convolve.convolve(x, w.astype(np.float32), 1, ((0, 0), (0, 0)), groups)
        assert given.shape == (1, 0, 0, 3)
