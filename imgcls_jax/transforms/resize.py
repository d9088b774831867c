"""Resize to an exact size."""

from imgcls_jax.transforms import TRANSFORMS, _decode
from imgcls_jax.transforms._resize import Interpolation, resize_to


@TRANSFORMS.register()
def resize(*, size: int | tuple[int, int], interpolation: Interpolation = "bilinear",
           antialias: bool = True):
    """u8[h,w,C] -> u8[H,W,C], whatever the aspect ratio was. size: H and W, or (H, W)."""
    height, width = (size, size) if isinstance(size, int) else size

    def transform(example, seed):
        image = resize_to(_decode.pixels(example), height, width, interpolation, antialias)
        return {**example, "image": image}

    transform.size = (height, width)
    return transform
