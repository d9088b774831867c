"""Random erasing, on one example on the host."""

import math
from typing import Literal

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Count, Positive, Share
from imgcls_jax.transforms import TRANSFORMS, _geometry

TRIES = 10  # as in timm and torchvision; after that nothing is erased


@TRANSFORMS.register()
def random_erasing(*, p: Share = 0.25, mode: Literal["const", "rand", "pixel"] = "const",
                   count: Count = 1, scale: tuple[Share, Share] = (0.02, 1 / 3),
                   ratio: tuple[Positive, Positive] = (0.3, 1 / 0.3),
                   mean: tuple[float, ...] = (0.485, 0.456, 0.406),
                   std: tuple[float, ...] = (0.229, 0.224, 0.225)):
    """u8[H,W,C] -> u8[H,W,C], with probability p up to `count` boxes of it are erased.

    arXiv 1708.04896 as in timm, with its defaults. scale: share of the area, uniform, divided by
    the number of boxes, which is uniform from 1 to `count`. ratio: height / width, log-uniform.
    mode: what fills a box: const: 0; rand: one normal color; pixel: a normal color for each pixel;
    all for images normalised with `mean` and `std`, clipped to levels of 0 to 255; both are
    averaged for an image with one channel. torchvision.transforms.RandomErasing is scale=(0.02,
    0.33), ratio=(0.3, 3.3) with "const", or with "pixel" for its value="random".
    """
    if count < 1 or not 0 <= scale[0] <= scale[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
        raise ConfigError(f"random_erasing: count={count}, scale={scale}, ratio={ratio} not valid",
                          where="config.transforms",
                          fix="use count >= 1, 0 <= scale <= 1 and 0 < ratio, each (low, high)")

    def transform(example, seed):
        tf = tensorflow()
        def erased():
            image = before
            shape = tf.unstack(tf.shape(image)[:2])
            for number, box in enumerate(tf.unstack(sample_boxes(seed, *shape, count, scale,
                                                                 ratio))):
                noise = tf.random.experimental.stateless_fold_in(seed, number + 2)
                levels = _levels(noise, box, tf.shape(image), mode,
                                 *(_of_channels(v, image.shape[-1]) for v in (mean, std)))
                image = _geometry.erase(image, tf.unstack(box), levels)
            return image

        before = decoding.pixels(example)
        erase = tf.random.stateless_uniform((), seed) < p
        made = tf.cond(erase, erased, lambda: before)
        return {**example, "image": tf.ensure_shape(made, before.shape)}

    return transform


def sample_boxes(seed, height, width, count: int, scale, ratio):
    """i32[count,4]: top, left, height, width of boxes inside (height, width); zeros for none."""
    tf = tensorflow()
    uniform = tf.random.stateless_uniform((count, 2 * TRIES + 3),
                                          tf.random.experimental.stateless_fold_in(seed, 1))
    full = tf.cast(tf.stack([height, width]), tf.float32)
    wanted = 1 + tf.cast(uniform[0, -1] * count, tf.int32)
    areas = scale[0] + (scale[1] - scale[0]) * uniform[:, :TRIES]
    areas *= full[0] * full[1] / tf.cast(wanted, tf.float32)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratios = tf.exp(low + (high - low) * uniform[:, TRIES:2 * TRIES])
    heights, widths = tf.round(tf.sqrt(areas * ratios)), tf.round(tf.sqrt(areas / ratios))
    fits = (heights < full[0]) & (widths < full[1])
    first = tf.argmax(fits, 1, output_type=tf.int32)
    sides = tf.stack([tf.gather(sides, first, batch_dims=1) for sides in (heights, widths)], 1)
    corners = tf.floor(uniform[:, -3:-1] * (full - sides + 1))
    used = tf.reduce_any(fits, 1) & (tf.range(count) < wanted)
    return tf.where(used[:, None], tf.cast(tf.concat([corners, sides], 1), tf.int32), 0)


def _levels(seed, box, shape, mode: str, mean, std):
    """u8, broadcast to [H,W,C]: what a box is filled with. mean, std: f32[C], in levels of 255."""
    tf = tensorflow()
    if mode == "const":
        return tf.cast(tf.round(mean), tf.uint8)
    top, left, height, width = tf.unstack(box)
    drawn = shape[2:] if mode == "rand" else tf.stack([height, width, shape[2]])
    normal = tf.random.stateless_normal(drawn, seed)
    levels = tf.saturate_cast(tf.round(mean + std * normal), tf.uint8)
    if mode == "rand":
        return levels
    return tf.pad(levels, ((top, shape[0] - top - height), (left, shape[1] - left - width), (0, 0)))


def _of_channels(values: tuple[float, ...], channels: int):
    """f32[channels] in levels of 255."""
    tf = tensorflow()
    if channels == 1:
        values = (sum(values) / len(values),)
    if len(values) != channels:
        raise ConfigError(f"mean or std has {len(values)} values, images {channels} channels",
                          where="random_erasing", fix="give one value per channel")
    return 255 * tf.constant(values, tf.float32)
