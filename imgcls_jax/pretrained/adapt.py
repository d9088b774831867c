"""Adapts weights to a model with another image size or channel count: position tables, stems.

A head is never adapted: another class count needs a new head (config.init.reset).
"""

import math

import jax
import numpy as np

from imgcls_jax.errors import CheckpointError

Grid = tuple[int, int]  # rows and columns of patches


def fit(path: str, value: np.ndarray, shape: tuple[int, ...], grid: Grid | None = None,
        found: Grid | None = None) -> np.ndarray | None:
    """`value` in the shape of the model's leaf, or None where no rule knows how. grid, found: see
    `positions`; a table of as many positions may still be of another grid."""
    if path.endswith("/positions") and value.ndim == 3 and value.shape[-1] == shape[-1] and (
            grid or value.shape != tuple(shape)):
        return positions(value, shape[1], grid, found)
    if value.shape == tuple(shape):
        return value
    # Of the dense kernels only that of patches is a stem; others may have 3 * n * n inputs too.
    if path.endswith("/patches/kernel" if value.ndim == 2 else "/kernel") and (
            value.ndim == len(shape)):
        return stem(value, tuple(shape))
    return None


def positions(table: np.ndarray, tokens: int, grid: Grid | None = None,
              found: Grid | None = None) -> np.ndarray:
    """f[1,N,D] -> f[1,tokens,D]: bicubic with antialiasing, class and distillation tokens kept.

    grid, found: the patches of the model and of the table, for which None means a square. What is
    beyond them are the other tokens; where the table has patches alone, as those of big_vision and
    DeiT III have, a token has no position, which is one of zeros. CheckpointError where the table
    is not of such a grid. As timm/layers/pos_embed.py (resample_abs_pos_embed).
    """
    grid = grid or _square(tokens)
    extra = tokens - math.prod(grid) if grid else None
    if extra and table.shape[1] == math.prod(found or _square(table.shape[1], 0) or (0,)):
        table = np.pad(table, ((0, 0), (extra, 0), (0, 0)))
    count = table.shape[1]
    old = found or (_square(count, extra) if extra is not None else None)
    if grid is None or old is None or count - math.prod(old) != extra:
        said = f" of {old[0]} x {old[1]} patches" if old else ""
        wanted = f" for {grid[0]} x {grid[1]} patches" if grid else ""
        raise CheckpointError(
            f"a table of {count} positions{said} cannot be resized to {tokens}{wanted}",
            where="positions", fix="say the rows and columns of patches that the weights were "
            "trained with, config.init.grid=(rows, columns), or add positions to "
            "config.init.reset")
    if tuple(old) == tuple(grid):
        return table
    patches = table[:, extra:].reshape(1, *old, -1).astype(np.float32)
    patches = jax.image.resize(patches, (1, *grid, patches.shape[-1]), "cubic")
    patches = np.asarray(patches).reshape(1, math.prod(grid), -1).astype(table.dtype)
    return np.concatenate((table[:, :extra], patches), 1)


def _square(count: int, extra: int | None = None) -> Grid | None:
    """The square grid of a table, with 0 to 2 other tokens where their number is not known."""
    for others in (0, 1, 2) if extra is None else (extra,):
        side = math.isqrt(max(count - others, 0))
        if side and side * side == count - others:
            return side, side
    return None


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
