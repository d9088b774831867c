import jax
import numpy as np

from imgcls_jax.layers.relu import relu


def test_relu_and_its_gradient():
    x = np.array([-2.0, -0.0, 0.0, 3.0], np.float32)
    np.testing.assert_array_equal(relu(x), [0, 0, 0, 3])
    np.testing.assert_array_equal(jax.grad(lambda x: (relu(x) * np.arange(1, 5)).sum())(x),
                                  [0, 0, 0, 4])
