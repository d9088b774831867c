"""Policies of automatic augmentation: one of a list of operations is drawn for every image.

Under `vmap` a switch computes all its branches for every image. Here an operation is a row of
numbers instead, and one program of few passes computes any of them: a gather of pixels (rotate,
shear, translate), a table of levels (autocontrast, equalize, invert, posterize, solarize,
solarize_add), a blend (brightness, color, contrast, sharpness) and a square (cutout); a pass that
an operation does not need leaves its image unchanged. A pass that no operation of a policy needs
is left out of the program.
"""

import dataclasses
import enum
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imgcls_jax.device_transforms import _color, _geometry

Matrix = tuple[float, float, float, float, float, float]
SAME: Matrix = (1, 0, 0, 0, 1, 0)


class Away(enum.IntEnum):
    """The image that a blend leads away from."""

    BLACK = 0
    LUMA = 1
    MEAN = 2
    SMOOTH = 3


class Stretch(enum.IntEnum):
    """A table of levels that is made from the image."""

    NONE = 0
    AUTOCONTRAST = 1
    EQUALIZE = 2


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation with one strength; the defaults change nothing.

    matrix: pixel (x, y) of the result is the one at matrix @ (x, y, 1). invert_from, keep, add: as
    in _color.pointwise. away, factor: as in _color.blend. half: half the side of a square that is
    cut out, at a random place.
    """

    matrix: Matrix = SAME
    stretch: Stretch = Stretch.NONE
    invert_from: int = 256
    keep: int = 255
    add: int = 0
    away: Away = Away.BLACK
    factor: float = 1.0
    half: int = 0


@dataclasses.dataclass(frozen=True)
class Policy:
    """Operations, each drawn equally often, and how pixels are moved.

    places: (matrix [B,6], height, width) -> (rows, columns), a function of _geometry; matrices:
    turns the operations' matrices into its argument. fill: the level of pixels from outside the
    image, and of squares.
    """

    operations: Sequence[Operation]
    places: Callable
    matrices: Callable[[np.ndarray], np.ndarray]
    fill: int

    def __call__(self, key, images):
        """u8[B,H,W,C] -> u8[B,H,W,C], one operation each."""
        draw_key, place_key = jax.random.split(key)
        chosen = jax.random.randint(draw_key, (len(images),), 0, len(self.operations))
        return self.apply(place_key, images, chosen)

    def apply(self, key, images, chosen):
        """Applies operation chosen[b], i32[B], to each image; the key places squares."""
        row = {name: jnp.asarray(column)[chosen] for name, column in self._table().items()}
        used = {field.name for field in dataclasses.fields(Operation)
                if any(getattr(o, field.name) != field.default for o in self.operations)}
        height, width = images.shape[1:3]
        if "matrix" in used:
            images = _geometry.pick(images, *self.places(row["matrix"], height, width), self.fill)
        if used & {"stretch", "invert_from", "keep", "add"}:
            images = _color.look_up(images, _levels(images, row, "stretch" in used))
        if used & {"away", "factor"}:
            images = _color.blend(_degenerate(images, row["away"]), images, row["factor"])
        if "half" in used:
            inside = _square(key, row["half"], height, width)
            images = jnp.where(inside, jnp.uint8(self.fill), images)
        return images

    def _table(self) -> dict[str, np.ndarray]:
        """The fields of all operations, [K,...]."""
        fields = [field.name for field in dataclasses.fields(Operation)]
        columns = {name: np.array([getattr(o, name) for o in self.operations]) for name in fields}
        return {name: column.astype(np.int32) for name, column in columns.items()} | {
            "factor": columns["factor"].astype(np.float32),
            "matrix": self.matrices(columns["matrix"].astype(np.float64))}


def _levels(images, row: dict[str, Any], stretched: bool):
    """u8[B,C,256]"""
    shape = (len(images), images.shape[-1], 256)
    table = jnp.broadcast_to(
        _color.pointwise(row["invert_from"], row["keep"], row["add"]), shape)
    if not stretched:
        return table
    counts, stretch = _color.counts(images), row["stretch"][:, None, None]
    table = jnp.where(stretch == Stretch.EQUALIZE, _color.equalize(counts), table)
    return jnp.where(stretch == Stretch.AUTOCONTRAST, _color.autocontrast(counts), table)


def _degenerate(images, away):
    """i32[B,H,W,C], what each image is led away from."""
    gray = _color.luma(images)
    of = {Away.LUMA: gray, Away.MEAN: _color.mean(gray), Away.SMOOTH: _color.smooth(images)}
    made = jnp.zeros(images.shape, jnp.int32)
    for kind, levels in of.items():
        made = jnp.where((away == kind)[:, None, None, None], levels, made)
    return made


def _square(key, half, height: int, width: int):
    """bool[B,H,W,1]: a square of side 2 * half about a random place (arXiv 1708.04552)."""
    def near(key, size):
        center = jax.random.randint(key, half.shape, 0, size)[:, None]
        return (center - half[:, None] <= jnp.arange(size)) \
            & (jnp.arange(size) < center + half[:, None])

    y_key, x_key = jax.random.split(key)
    return (near(y_key, height)[:, :, None] & near(x_key, width)[:, None, :])[..., None]
