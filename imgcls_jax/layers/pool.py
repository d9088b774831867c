"""Pooling with torch's sizes: padding on both sides, optionally rounding up."""

import jax.numpy as jnp
import numpy as np
from jax import lax

from imgcls_jax.errors import ConfigError


def max_pool(x, size: int, stride: int, *, padding: int = 0, ceil: bool = False):
    """f[B,H,W,C] -> the maximum of each window. ceil: a last window may extend over the edge if it
    begins inside (torch.nn.MaxPool2d, ceil_mode)."""
    return lax.reduce_window(x, np.array(-np.inf, x.dtype), lax.max, (1, size, size, 1),
                             (1, stride, stride, 1), _edges(x, size, stride, padding, ceil))


def avg_pool(x, size: int, stride: int, *, padding: int = 0, count_padding: bool = True,
             ceil: bool = False):
    """f[B,H,W,C] -> the mean of each window. count_padding: padded zeros count in the divisor, the
    default of torch.nn.AvgPool2d. ceil: as of max_pool; what lies beyond the edge does not count,
    and neither does padding."""
    edges = _edges(x, size, stride, padding, ceil)
    window = (1, size, size, 1), (1, stride, stride, 1), edges
    total = lax.reduce_window(x, np.array(0, x.dtype), lax.add, *window)
    if not any(map(any, edges)) or (count_padding and not ceil):
        return total / (size * size)
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    return total / lax.reduce_window(ones, np.array(0, x.dtype), lax.add, *window)


def adaptive_avg_pool(x, size: int):
    """f[B,H,W,C] -> f[B,size,size,C]: cell i is the mean of rows floor(i H / size) up to
    ceil((i + 1) H / size), as torch.nn.AdaptiveAvgPool2d."""
    for axis in (1, 2):
        length = x.shape[axis]
        if length == size:
            continue
        weights = np.zeros((size, length))
        for i in range(size):
            first, last = i * length // size, -(-(i + 1) * length // size)
            weights[i, first:last] = 1 / (last - first)
        x = jnp.moveaxis(jnp.tensordot(x, jnp.asarray(weights, x.dtype), ((axis,), (1,))), -1, axis)
    return x


def _edges(x, size: int, stride: int, padding: int, ceil: bool):
    edges = [(0, 0)]
    for length in x.shape[1:3]:
        free = length + 2 * padding - size
        beyond = -free % stride if ceil else 0
        if beyond and free + beyond >= length + padding:  # the last window would be only padding
            beyond = 0
        if free + beyond < 0:
            raise ConfigError(f"a window of {size} pixels does not fit into a map of "
                              f"{x.shape[1]}x{x.shape[2]}", where="pooling",
                              fix="use larger images")
        edges.append((padding, padding + beyond))
    return [*edges, (0, 0)]
