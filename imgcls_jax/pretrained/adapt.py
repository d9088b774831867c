"""Adapts weights to a model with another image size or channel count: position tables, stems.

A head is never adapted: another class count needs a new head (config.init.reset).
"""

import math

import jax
import numpy as np

from imgcls_jax.errors import CheckpointError


def fit(path: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """`value` in the shape of the model's leaf, or None where no rule knows how."""
    if value.shape == tuple(shape):
        return value
    if path.endswith("/positions") and value.ndim == 3 and value.shape[-1] == shape[-1]:
        return positions(value, shape[1])
    # Of the dense kernels only that of patches is a stem; others may have 3 * n * n inputs too.
    if path.endswith("/patches/kernel" if value.ndim == 2 else "/kernel") and (
            value.ndim == len(shape)):
        return stem(value, tuple(shape))
    return None


def positions(table: np.ndarray, tokens: int) -> np.ndarray:
    """f[1,N,D] -> f[1,tokens,D], for square grids: bicubic with antialiasing, extra tokens kept.

    As timm/layers/pos_embed.py (resample_abs_pos_embed). Rows beyond the largest square number are
    class or distillation tokens.
    """
    def split(count):
        return next((extra for extra in (0, 1, 2)
                     if math.isqrt(count - extra) ** 2 == count - extra), None)

    extra = split(table.shape[1])
    if extra is None or math.isqrt(tokens - extra) ** 2 != tokens - extra:
        raise CheckpointError(f"a table of {table.shape[1]} positions cannot be resized to "
                              f"{tokens}", where="positions",
                              fix="use square images, or add positions to config.init.reset")
    old, new = math.isqrt(table.shape[1] - extra), math.isqrt(tokens - extra)
    grid = table[:, extra:].reshape(1, old, old, -1).astype(np.float32)
    grid = np.asarray(jax.image.resize(grid, (1, new, new, grid.shape[-1]), "cubic"))
    grid = grid.reshape(1, new * new, -1).astype(table.dtype)
    return np.concatenate((table[:, :extra], grid), 1)


def stem(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """A first kernel [h,w,3,D], or that of patches [p*p*3,D], for another number of channels.

    As timm/models/_manipulate.py (adapt_input_conv): one channel gets the sum over the colors;
    more get the colors in turn, scaled so that a gray image gives the same output.
    """
    if kernel.ndim == 2:
        side = math.isqrt(kernel.shape[0] // 3)
        if 3 * side * side != kernel.shape[0] or shape[0] % (side * side) or (
                kernel.shape[1] != shape[1]):
            return None
        inner = stem(kernel.reshape(side, side, 3, -1), (side, side, shape[0] // side**2, shape[1]))
        return None if inner is None else inner.reshape(shape)
    if kernel.ndim != 4 or kernel.shape[2] != 3 or (*kernel.shape[:2], kernel.shape[3]) != (
            *shape[:2], shape[3]):
        return None
    channels = shape[2]
    if channels == 1:
        return kernel.sum(2, keepdims=True)
    repeated = np.tile(kernel, (1, 1, -(-channels // 3), 1))[:, :, :channels]
    return (repeated * (3 / channels)).astype(kernel.dtype)
