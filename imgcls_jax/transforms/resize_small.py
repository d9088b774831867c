"""Resize by the short side."""

from imgcls_jax.transforms import TRANSFORMS, _decode, _pillow, _resize
from imgcls_jax.transforms._resize import Interpolation, Library


@TRANSFORMS.register()
def resize_small(*, size: int, crop: int | None = None, interpolation: Interpolation = "bilinear",
                 antialias: bool | None = None, library: Library = "tensorflow"):
    """u8[h,w,C] or encoded bytes -> u8[H,W,C] of the same aspect ratio with min(H, W) = size.

    The long side is rounded down, as torchvision and timm do. crop: what "center_crop" of so many
    pixels would leave, alone; of Pillow's resizing within a level, as only what it needs is decoded
    and resized, one and a half times as fast. timm's crop_pct is size=floor(crop / crop_pct).
    """
    resized = _resize.resizer(interpolation, antialias, library)

    def shape(height, width):
        import tensorflow as tf

        short = tf.minimum(height, width)
        return size * height // short, size * width // short

    def transform(example, seed):
        import tensorflow as tf

        if crop and library == "pillow" and interpolation in _pillow.RADIUS:
            image = _resize.center_by_pillow(example, shape, crop, interpolation)
            return {**example, "image": image}
        image = _decode.pixels(example)
        image = resized(image, *shape(*tf.unstack(tf.shape(image)[:2])))
        return {**example, "image": _decode.center(image, crop, "resize_small") if crop else image}

    transform.size = (crop, crop) if crop else None
    return transform
