"""Resizes to an exact size."""

from imgcls_jax.data import decoding
from imgcls_jax.registry import Count
from imgcls_jax.transforms import TRANSFORMS
from imgcls_jax.transforms._resize import Interpolation, Library, resizer


@TRANSFORMS.register(random=False)
def resize(*, size: Count | tuple[Count, Count], interpolation: Interpolation = "bilinear",
           antialias: bool | None = None, library: Library = "tensorflow"):
    """u8[h,w,C] -> u8[H,W,C], without keeping the aspect ratio. size: H and W, or (H, W)."""
    height, width = (size, size) if isinstance(size, int) else size

    resized = resizer(interpolation, antialias, library)

    def transform(example, seed):
        return {**example, "image": resized(decoding.pixels(example), height, width)}

    transform.size = (height, width)
    return transform
