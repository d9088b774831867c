"""Images cut into square patches, each projected to a token by a dense layer."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from imgcls_jax.errors import ConfigError


class Patches(nn.Module):
    """f[B,H,W,C] -> f[B,N,features]; the kernel is that of a dense layer, [size*size*C, features].

    ConfigError if `size` does not divide height and width.
    """

    features: int
    size: int
    dtype: Any
    kernel_init: Callable = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(self, images):
        wide = jnp.promote_types(self.dtype, jnp.float32)
        shape = (self.size * self.size * images.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, wide)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), wide)
        # A TPU's convolution cuts the patches itself; other backends are faster with a product.
        products = lax.platform_dependent(
            images.astype(self.dtype), kernel.astype(self.dtype),
            tpu=self._convolved, default=self._multiplied)
        return products + bias.astype(self.dtype)

    def _multiplied(self, images, kernel):
        return patchify(images, self.size)[0] @ kernel

    def _convolved(self, images, kernel):
        size, channels = self.size, images.shape[-1]
        kernel = kernel.reshape(size, size, channels, self.features)
        y = lax.conv_general_dilated(images, kernel, (size, size), "VALID",
                                     dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return y.reshape(len(images), -1, self.features)


def patchify(images, size: int):
    """f[B,H,W,C] -> (f[B,N,size*size*C], (H/size, W/size)), rows first.

    A dense kernel [size*size*C, D] has the order of a reshaped [size, size, C, D].
    """
    batch, height, width, channels = images.shape
    grid = patch_grid(height, width, size)
    x = images.reshape(batch, grid[0], size, grid[1], size, channels).swapaxes(2, 3)
    return x.reshape(batch, grid[0] * grid[1], size * size * channels), grid


def patch_grid(height: int, width: int, size: int) -> tuple[int, int]:
    """(H/size, W/size); ConfigError if they are not whole numbers."""
    for name, pixels in (("height", height), ("width", width)):
        if pixels % size:
            below = pixels // size * size
            sizes = f"{below} or {below + size}" if below else f"{size}"
            raise ConfigError(f"an image {name} of {pixels} pixels does not divide into patches "
                              f"of {size}", where=f"{height}x{width} images, patch size {size}",
                              fix=f"resize or crop to {sizes} pixels, or use another patch size")
    return height // size, width // size
