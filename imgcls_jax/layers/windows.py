"""Windows of a feature map, for attention within each, and a bias for the offset of two pixels."""

import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

Shift = tuple[int, int]  # pixels by which windows begin lower and further right
APART = -100.0  # not -inf: a score of Swin v2 can be as large, so it shows in published logits


def shift_of(height: int, width: int, size: int) -> Shift:
    """Half a window along each axis that has more than one."""
    rows, columns = (size // 2 if pixels > size else 0 for pixels in (height, width))
    return rows, columns


def split(x, size: int, shift: Shift = (0, 0)):
    """f[B,H,W,C] -> f[B*windows,size*size,C], the windows of an image after each other.

    Zeros fill the map up to whole windows, below and on the right; then it is rolled by the shift,
    so that the last windows hold pixels of both ends (arXiv 2103.14030, figure 4).
    """
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, -height % size), (0, -width % size), (0, 0)))
    x = jnp.roll(x, (-shift[0], -shift[1]), (1, 2)) if any(shift) else x
    x = x.reshape(batch, x.shape[1] // size, size, x.shape[2] // size, size, channels)
    return x.swapaxes(2, 3).reshape(-1, size * size, channels)


def join(windows, height: int, width: int, size: int, shift: Shift = (0, 0)):
    """The inverse of `split`: f[B*windows,size*size,C] -> f[B,height,width,C]."""
    rows, columns = -(-height // size), -(-width // size)
    x = windows.reshape(-1, rows, columns, size, size, windows.shape[-1]).swapaxes(2, 3)
    x = x.reshape(-1, rows * size, columns * size, x.shape[-1])
    x = jnp.roll(x, shift, (1, 2)) if any(shift) else x
    return x[:, :height, :width]


def split_grid(x, size: int):
    """f[B,H,W,C] -> f[B*H*W/size**2,size*size,C]: each cell has size x size pixels, spread evenly
    over the map (arXiv 2204.01697, section 3.2). size divides H and W."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, size, height // size, size, width // size, channels)
    return x.transpose(0, 2, 4, 1, 3, 5).reshape(-1, size * size, channels)


def join_grid(cells, height: int, width: int, size: int):
    """The inverse of `split_grid`: f[B*H*W/size**2,size*size,C] -> f[B,height,width,C]."""
    x = cells.reshape(-1, height // size, width // size, size, size, cells.shape[-1])
    return x.transpose(0, 3, 1, 4, 2, 5).reshape(-1, height, width, cells.shape[-1])


def apart(height: int, width: int, size: int, shift: Shift) -> np.ndarray:
    """f32[windows,1,size*size,size*size], to be added to scores: APART between pixels that share a
    window only because the map was rolled, else 0."""
    ends = []
    for pixels, by in zip((height, width), shift, strict=True):
        whole = pixels + -pixels % size
        ends.append(np.arange(whole) >= whole - by)
    parts = 2 * ends[0][:, None] + ends[1]
    rows, columns = (len(end) // size for end in ends)
    parts = parts.reshape(rows, size, columns, size).swapaxes(1, 2).reshape(-1, 1, size * size)
    return np.where(parts[..., None] == parts[:, :, None], np.float32(0), np.float32(APART))


@functools.cache
def relative(size: int) -> np.ndarray:
    """i32[size**2,size**2]: the row of a table [(2*size-1)**2, ...] for each query and key."""
    y, x = np.mgrid[:size, :size].reshape(2, -1)
    dy, dx = (axis[:, None] - axis + size - 1 for axis in (y, x))
    return (dy * (2 * size - 1) + dx).astype(np.int32)


def of_pairs(table, size: int):
    """f[(2*size-1)**2,heads] -> f[heads,size**2,size**2]: its value for each query and key."""
    found = table.at[relative(size).ravel()].get(mode="promise_in_bounds")
    return found.T.reshape(-1, size * size, size * size)


class RelativeBias(nn.Module):
    """A learned number for each head and each offset of a key from a query: f[heads,N,N] for the
    N = size * size pixels of a window."""

    size: int
    heads: int

    @nn.compact
    def __call__(self, dtype):
        """dtype: of the table and the result."""
        shape = ((2 * self.size - 1) ** 2, self.heads)
        return of_pairs(self.param("table", nn.initializers.normal(0.02), shape, dtype), self.size)


def log_offsets(size: int) -> np.ndarray:
    """f64[(2*size-1)**2,2]: the offset of each row of a table as sign * log2(1 + distance) / 3, the
    largest distance being 8 for every size."""
    offsets = np.mgrid[1 - size:size, 1 - size:size].reshape(2, -1).T * 8 / max(size - 1, 1)
    return np.sign(offsets) * np.log2(np.abs(offsets) + 1) / 3


class LogBias(nn.Module):
    """As RelativeBias, but computed by a small network from the offset's logarithm (arXiv
    2111.09883, section 3.3): f[heads,N,N], 0 to 16."""

    size: int
    heads: int

    @nn.compact
    def __call__(self, dtype):
        """dtype: of the parameters and the result."""
        init = nn.initializers.normal(0.02)
        x = nn.Dense(512, kernel_init=init, dtype=dtype, param_dtype=dtype, name="hidden")(
            log_offsets(self.size))
        x = nn.Dense(self.heads, False, kernel_init=init, dtype=dtype, param_dtype=dtype,
                     name="out")(nn.relu(x))
        return of_pairs(16 * nn.sigmoid(x), self.size)
