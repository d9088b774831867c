"""Moving the pixels of a batch: u8[B,H,W,C], and for each new pixel the place to take it from."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from imgcls_jax.device_transforms import _exact


def pick(images, rows, columns, fill: int):
    """images[b, rows[b,y,x], columns[b,y,x]], `fill` where that is outside.

    rows, columns: i32, of shapes that broadcast to [B,h,w]. Each image reads only its own pixels,
    by one gather along one axis: a batch that is split over devices stays split.
    """
    examples, height, width, channels = images.shape
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    place = jnp.clip(rows, 0, height - 1) * width + jnp.clip(columns, 0, width - 1)
    flat = images.reshape(examples, height * width, channels)
    taken = jax.vmap(lambda image, at: image.at[at].get(mode="promise_in_bounds"))(flat, place)
    return jnp.where(inside[..., None], taken, jnp.asarray(fill, images.dtype))


def rounded(matrix, height: int, width: int):
    """(rows, columns) i32[B,H,W] at matrix @ (x, y, 1), the nearest ones, as TensorFlow takes them.

    matrix: f32[B,6]. The sums are those of plain f32, rounded half away from zero: a shear of 0.3
    meets a half at every tenth row.
    """
    def places(x_factor, y_factor, shift):
        x, y = (_exact.product(factor[:, None], jnp.arange(size, dtype=jnp.float32))
                for factor, size in ((x_factor, width), (y_factor, height)))
        place = x[:, None, :] + y[:, :, None] + shift[:, None, None]
        return lax.round(place, lax.RoundingMethod.AWAY_FROM_ZERO).astype(jnp.int32)

    return places(*matrix[:, 3:].T), places(*matrix[:, :3].T)


def fixed(matrix, height: int, width: int):
    """(rows, columns) i32[B,H,W], as Pillow takes the nearest ones: in steps of 1 / 65,536 pixel.

    matrix: i32[B,6] in such steps, for (x, y, 1) of whole numbers (`to_fixed`).
    """
    def places(x_factor, y_factor, shift):
        return (x_factor[:, None, None] * jnp.arange(width)[None, None, :]
                + y_factor[:, None, None] * jnp.arange(height)[None, :, None]
                + shift[:, None, None]) >> 16

    return places(*matrix[:, 3:].T), places(*matrix[:, :3].T)


def to_fixed(matrices: np.ndarray) -> np.ndarray:
    """f64[K,6], of places in the plane as Pillow takes them (a pixel's center is at a half), ->
    i32[K,6] for `fixed`."""
    shifted = matrices.copy()
    shifted[:, [2, 5]] += (matrices[:, [0, 3]] + matrices[:, [1, 4]]) / 2
    return np.floor(shifted * 65536 + 0.5).astype(np.int32)


def turned(degrees: float, height: int, width: int) -> tuple[float, ...]:
    """Pillow's matrix of a rotation about the center, counterclockwise."""
    angle = -math.radians(degrees % 360)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)
