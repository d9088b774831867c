"""Conv against a convolution written out in numpy."""

import jax
import numpy as np
import pytest
from jax import lax

from imgcls_jax.layers.conv import Conv


def numpy_conv(x, kernel, stride, padding):
    """Cross-correlation as torch defines it: zeros on both sides, H' = (H + 2p - k) // s + 1."""
    x = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    rows, columns = kernel.shape[:2]
    height, width = (x.shape[1] - rows) // stride + 1, (x.shape[2] - columns) // stride + 1
    y = np.zeros((len(x), height, width, kernel.shape[-1]))
    for i in range(height):
        for j in range(width):
            window = x[:, i * stride:i * stride + rows, j * stride:j * stride + columns]
            y[:, i, j] = np.einsum("bhwc,hwcd->bd", window, kernel)
    return y


@pytest.mark.parametrize("kernel_size, stride, padding", [
    ((3, 3), 1, None), ((3, 3), 2, None), ((7, 7), 2, None), ((1, 1), 1, None), ((1, 1), 2, None),
    ((1, 3), 1, None), ((3, 3), 1, (0, 0)), ((1, 1), 1, (1, 1)),
])
def test_padding_and_stride_are_those_of_torch(kernel_size, stride, padding, random_variables):
    x = np.random.default_rng(0).normal(size=(2, 8, 10, 3)).astype(np.float32)
    module = Conv(4, kernel_size, stride, padding)
    v = random_variables(module, x)
    expected = numpy_conv(x, np.asarray(v["params"]["kernel"]), stride,
                          padding or (kernel_size[0] // 2, kernel_size[1] // 2))
    np.testing.assert_allclose(jax.jit(module.apply)(v, x), expected, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_a_1x1_kernel_are_those_of_the_convolution(stride, random_variables):
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
    module = Conv(4, (1, 1), stride)
    v = random_variables(module, x)

    def reference(v, x):
        return lax.conv_general_dilated(x, v["params"]["kernel"], (stride, stride), "VALID",
                                        dimension_numbers=("NHWC", "HWIO", "NHWC"))

    ours, expected = (jax.jit(jax.grad(lambda v, x, f=f: (f(v, x) ** 2).sum(), (0, 1)))(v, x)
                      for f in (module.apply, reference))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), ours, expected)
