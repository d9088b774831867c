"""Random resized crop: a box of random area and aspect ratio, resized to one size."""

import functools
import math
from typing import Literal

from imgcls_jax.transforms import TRANSFORMS, _decode
from imgcls_jax.transforms._resize import Interpolation, Library, resizer

RANDOM = ("bilinear", "bicubic")  # timm's
TRIES = 10  # as torchvision; then the largest central box of an allowed ratio


@TRANSFORMS.register()
def random_resized_crop(*, size: int | tuple[int, int], scale: tuple[float, float] = (0.08, 1.0),
                        ratio: tuple[float, float] = (3 / 4, 4 / 3),
                        interpolation: Interpolation | Literal["random"] = "bilinear",
                        antialias: bool | None = None, library: Library = "tensorflow"):
    """u8[h,w,C] or encoded bytes -> u8[H,W,C]; of a JPEG only the box is decoded.

    size: H and W, or (H, W). scale: share of the area, uniform. ratio: width / height, uniform in
    its logarithm. The boxes are distributed as torchvision's (arXiv 1409.4842, section 6).
    interpolation: "random", timm's default, is bilinear or bicubic, each for half of the images.
    antialias costs about half the speed of the whole input, and published torchvision and timm
    recipes have it.
    """
    height, width = (size, size) if isinstance(size, int) else size
    kinds = RANDOM if interpolation == "random" else (interpolation,)
    resizers = [functools.partial(resizer(kind, antialias, library), height=height, width=width)
                for kind in kinds]

    def transform(example, seed):
        import tensorflow as tf

        def choose(height, width):
            return sample_box(seed, height, width, scale, ratio)

        if example["image"].dtype == tf.string:
            image = _decode.decode_and_crop(example["image"], example["channels"], choose)
        else:
            image = _decode.pixels(example)
            image = _decode.crop(image, *choose(*tf.unstack(tf.shape(image)[:2])))
        branches = [functools.partial(resized, image) for resized in resizers]
        if len(branches) == 1:
            return {**example, "image": branches[0]()}
        return {**example, "image": tf.switch_case(sample_interpolation(seed), branches)}

    transform.size = (height, width)
    return transform


def sample_interpolation(seed):
    """i32[], a number in RANDOM, independent of the box."""
    import tensorflow as tf

    apart = tf.random.experimental.stateless_fold_in(seed, 1)
    return tf.random.stateless_uniform((), apart, 0, len(RANDOM), tf.int32)


def sample_box(seed, height, width, scale, ratio) -> _decode.Box:
    """A random box inside (height, width), as a function of seed i32[2]."""
    import tensorflow as tf

    full_height, full_width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    uniform = tf.random.stateless_uniform((2, TRIES + 1), seed)
    areas = full_height * full_width * (scale[0] + (scale[1] - scale[0]) * uniform[0, :TRIES])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratios = tf.exp(low + (high - low) * uniform[1, :TRIES])
    heights, widths = tf.round(tf.sqrt(areas / ratios)), tf.round(tf.sqrt(areas * ratios))
    fits = ((0 < heights) & (heights <= full_height) & (0 < widths) & (widths <= full_width))

    nearest_ratio = tf.clip_by_value(full_width / full_height, *ratio)
    largest_height = tf.round(tf.minimum(full_height, full_width / nearest_ratio))
    largest_width = tf.round(tf.minimum(full_width, full_height * nearest_ratio))
    found, first = tf.reduce_any(fits), tf.argmax(fits, output_type=tf.int32)
    box_height = tf.maximum(tf.where(found, heights[first], largest_height), 1)
    box_width = tf.maximum(tf.where(found, widths[first], largest_width), 1)

    place = tf.where(found, uniform[:, TRIES], 0.5)
    room = tf.stack([full_height - box_height, full_width - box_width])
    corner = tf.minimum(tf.floor(place * (room + tf.cast(found, tf.float32))), room)
    top, left, box_height, box_width = tf.unstack(
        tf.cast(tf.concat([corner, [box_height, box_width]], 0), tf.int32))
    return top, left, box_height, box_width
