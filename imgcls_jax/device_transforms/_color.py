"""Pixel operations of the automatic augmentations on u8[B,H,W,C], equal to Pillow's.

An operation on single levels is a table of 256, made per image and channel.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from imgcls_jax.device_transforms import _exact


def counts(images):
    """i32[B,C,256]: how many pixels have each level."""
    return lax.platform_dependent(images, tpu=_count_by_products, default=_count_one_by_one)


def _count_one_by_one(images):
    def of_levels(levels):  # [N]; the examples and channels are axes outside
        return jnp.zeros(256, jnp.int32).at[levels].add(1, mode="promise_in_bounds")

    return jax.vmap(jax.vmap(of_levels, in_axes=-1))(_flat(images))


def _count_by_products(images):
    """Counts as a matrix product: one-hot high halves of the levels times one-hot low halves."""
    high, low = _halves(images)
    found = jnp.einsum("bnci,bncj->bcij", high, low, preferred_element_type=jnp.float32)
    return found.astype(jnp.int32).reshape(*found.shape[:2], 256)


def look_up(images, table):
    """Each level of each channel through table u8[B,C,256]."""
    return lax.platform_dependent(images, table, tpu=_look_up_by_products, default=_gather)


def _gather(images, table):
    examples, channels, levels = table.shape
    rows = table.reshape(examples, channels * levels)
    places = images.astype(jnp.int32) + levels * jnp.arange(channels)
    return jax.vmap(lambda row, at: row.at[at].get(mode="promise_in_bounds"))(rows, places)


def _look_up_by_products(images, table):
    """The high half of a level selects 16 entries of the table, its low half one of these.

    For a TPU, whose gather takes three times as long by its compiler's estimate (32 images of 224
    pixels on a v5e), and 0.8 GB for its indices.
    """
    high, low = _halves(images)
    table = table.reshape(*table.shape[:2], 16, 16).astype(high.dtype)
    rows = jnp.einsum("bnci,bcij->bncj", high, table, preferred_element_type=high.dtype)
    return jnp.where(low > 0, rows, 0).sum(-1).astype(jnp.uint8).reshape(images.shape)


def _flat(images):
    return images.reshape(len(images), -1, images.shape[-1])


def _halves(images):
    """(high, low) four bits of each level as one of 16, bf16[B,N,C,16]; bf16 holds any level."""
    flat = _flat(images)
    return tuple(jax.nn.one_hot(half, 16, dtype=jnp.bfloat16) for half in (flat >> 4, flat & 15))


def autocontrast(counts):
    """Tables that stretch each channel to 0 to 255; a channel with a single level stays."""
    low = jnp.argmax(counts > 0, -1)[..., None]
    high = 255 - jnp.argmax(counts[..., ::-1] > 0, -1)[..., None]
    levels = jnp.arange(256)
    span = jnp.maximum(high - low, 1)
    stretched = (levels - low) * 255 // span
    short, begins = _short_of_whole()
    whole = (levels > low) & (levels <= high) & ((levels - low) * 255 % span == 0)
    divisor = jnp.gcd(span, 255)
    place = jnp.asarray(begins)[span] + low * divisor + (levels - low) * divisor // span - 1
    stretched -= whole & jnp.asarray(short)[jnp.where(whole, place, 0)]
    return jnp.where(high > low, jnp.clip(stretched, 0, 255), levels).astype(jnp.uint8)


@functools.cache
def _short_of_whole() -> tuple[np.ndarray, np.ndarray]:
    """Where Pillow's sum in f64 is rounded to just below a whole number, so that its level is one
    less: 12,094 cases, most often white. XLA would not round f64 as Pillow does.

    Returns (bool[...], by span = highest - lowest level, by lowest level, and by which it is of the
    gcd(span, 255) levels above that one whose result is whole; i32[256], where each span begins).
    """
    parts, begins = [np.zeros(0, bool)], [0]
    for span in range(1, 256):
        begins.append(begins[-1] + len(parts[-1]))
        scale, divisor = 255.0 / span, math.gcd(span, 255)
        low, turn = np.arange(256 - span)[:, None], np.arange(1, divisor + 1)
        level = low + turn * (span // divisor)
        parts.append((np.floor(level * scale - low * scale) < turn * (255 // divisor)).ravel())
    return np.concatenate(parts), np.array(begins, np.int32)


def equalize(counts):
    """Tables that flatten the histogram; a channel with too few pixels or one level stays."""
    levels = jnp.arange(256)
    brightest = 255 - jnp.argmax(counts[..., ::-1] > 0, -1)[..., None]
    step = jnp.where(levels < brightest, counts, 0).sum(-1, keepdims=True) // 255
    below = jnp.cumsum(counts, -1) - counts
    flat = jnp.minimum((below + step // 2) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, flat, levels).astype(jnp.uint8)


def pointwise(invert_from, keep, add):
    """u8[B,1,256]: levels from invert_from on are inverted, those below 128 raised by `add`, up to
    255, and only the bits in `keep` stay. i32[B] each; 256, 0 and 255 change nothing."""
    levels = jnp.arange(256)[None, None, :]
    invert_from, keep, add = (number[:, None, None] for number in (invert_from, keep, add))
    raised = jnp.where(levels < 128, jnp.minimum(levels + add, 255), levels)
    return (jnp.where(levels >= invert_from, 255 - levels, raised) & keep).astype(jnp.uint8)


def luma(images):
    """u8[B,H,W,C] -> i32[B,H,W,1]; gray is itself."""
    wide = images.astype(jnp.int32)
    if images.shape[-1] == 1:
        return wide
    return (wide[..., :1] * 19595 + wide[..., 1:2] * 38470 + wide[..., 2:] * 7471 + 0x8000) >> 16


def mean(levels):
    """i32[B,H,W,1] -> i32[B,1,1,1], rounded."""
    pixels = levels.shape[1] * levels.shape[2]
    return (2 * levels.sum((1, 2, 3), keepdims=True) + pixels) // (2 * pixels)


def smooth(images):
    """u8[B,H,W,C] -> i32[B,H,W,C], the mean of 3 x 3 pixels, the central one weighted by 5; the
    outermost pixels stay."""
    wide = images.astype(jnp.int32)
    if min(images.shape[1:3]) < 3:
        return wide
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    square = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = (square + 4 * wide[:, 1:-1, 1:-1] + 6) // 13
    padded = jnp.pad(inner, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = (jnp.arange(size) for size in images.shape[1:3])
    edge = ((rows == 0) | (rows == len(rows) - 1))[:, None] \
        | ((columns == 0) | (columns == len(columns) - 1))
    return jnp.where(edge[..., None], wide, padded)


def blend(degenerate, images, factor):
    """degenerate + factor * (image - degenerate), clipped to 0 to 255 and truncated as in Pillow.

    degenerate: i32 that broadcasts to the images; factor: f32[B].
    """
    difference = (images.astype(jnp.int32) - degenerate).astype(jnp.float32)
    moved = _exact.product(factor[:, None, None, None], difference)
    return jnp.clip(degenerate.astype(jnp.float32) + moved, 0, 255).astype(jnp.uint8)
