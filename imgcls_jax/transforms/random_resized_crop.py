"""Random resized crop: a box of random area and aspect ratio, resized to one size."""

import functools
import math
from typing import Literal

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.registry import Count, Positive, Share
from imgcls_jax.transforms import TRANSFORMS
from imgcls_jax.transforms._resize import Interpolation, Library, resizer

RANDOM = ("bilinear", "bicubic")  # timm's
TRIES = 10  # as in torchvision; after that the largest central box of an allowed ratio


@TRANSFORMS.register()
def random_resized_crop(*, size: Count | tuple[Count, Count],
                        scale: tuple[Share, Share] = (0.08, 1.0),
                        ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3),
                        interpolation: Interpolation | Literal["random"] = "bilinear",
                        antialias: bool | None = None, library: Library = "tensorflow"):
    """u8[h,w,C] or encoded bytes -> u8[H,W,C]; for a JPEG only the box is decoded.

    size: H and W, or (H, W). scale: share of the area, uniform. ratio: width / height, log-uniform.
    The boxes are distributed as torchvision's (arXiv 1409.4842, section 6). interpolation:
    "random", timm's default, is bilinear or bicubic, each for half of the images. antialias costs
    about half the speed of the whole input; published torchvision and timm recipes use it.
    """
    height, width = (size, size) if isinstance(size, int) else size
    kinds = RANDOM if interpolation == "random" else (interpolation,)
    resizers = [functools.partial(resizer(kind, antialias, library), height=height, width=width)
                for kind in kinds]

    def transform(example, seed):
        tf = tensorflow()
        def choose(height, width):
            return sample_box(seed, height, width, scale, ratio)

        if example["image"].dtype == tf.string:
            image = decoding.decode_and_crop(example["image"], example["channels"], choose)
        else:
            image = decoding.pixels(example)
            image = decoding.crop(image, *choose(*tf.unstack(tf.shape(image)[:2])))
        branches = [functools.partial(resized, image) for resized in resizers]
        if len(branches) == 1:
            return {**example, "image": branches[0]()}
        return {**example, "image": tf.switch_case(sample_interpolation(seed), branches)}

    transform.size = (height, width)
    return transform


def sample_interpolation(seed):
    """i32[], a number in RANDOM, independent of the box."""
    tf = tensorflow()
    apart = tf.random.experimental.stateless_fold_in(seed, 1)
    return tf.random.stateless_uniform((), apart, 0, len(RANDOM), tf.int32)


def sample_box(seed, height, width, scale, ratio) -> decoding.Box:
    """A random box inside (height, width), as a function of seed i32[2]."""
    tf = tensorflow()
    full = tf.cast(tf.stack([height, width]), tf.float32)[:, None]
    uniform = tf.random.stateless_uniform((2, TRIES + 1), seed)
    areas = tf.reduce_prod(full) * (scale[0] + (scale[1] - scale[0]) * uniform[0, :TRIES])
    low, high = math.log(ratio[0]) / 2, math.log(ratio[1]) / 2
    half = low + (high - low) * uniform[1, :TRIES]
    tries = tf.round(tf.sqrt(areas) * tf.exp(tf.stack([-half, half])))

    # The largest box with the nearest ratio comes last and always fits.
    nearest_ratio = tf.clip_by_value(full[1] / full[0], *ratio)
    shape = tf.stack([1 / nearest_ratio, nearest_ratio])
    largest = tf.maximum(tf.round(tf.minimum(full, full[::-1] * shape)), 1)
    boxes = tf.concat([tries, largest], 1)
    first = tf.argmax(tf.reduce_all((0 < boxes) & (boxes <= full), 0), output_type=tf.int32)
    box = boxes[:, first]

    found = first < TRIES
    room = full[:, 0] - box
    place = tf.where(found, tf.minimum(tf.floor(uniform[:, TRIES] * (room + 1)), room),
                     tf.floor(0.5 * room))
    top, left, box_height, box_width = tf.unstack(tf.cast(tf.concat([place, box], 0), tf.int32))
    return top, left, box_height, box_width
