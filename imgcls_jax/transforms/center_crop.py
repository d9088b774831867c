"""Crop the center."""

from imgcls_jax.transforms import TRANSFORMS, _decode


@TRANSFORMS.register()
def center_crop(*, size: int):
    """u8[h,w,C] -> u8[size,size,C], at the place torchvision takes it from.

    An image that is smaller raises: put a resize before. timm's crop_pct=0.875 of 224 pixels is a
    "resize_small" to floor(224 / 0.875) = 256, or with crop_mode="squash" a "resize", and this.
    """
    def transform(example, seed):
        return {**example, "image": _decode.center(_decode.pixels(example), size, "center_crop")}

    transform.size = (size, size)
    return transform
