"""Decode the image."""

from imgcls_jax.transforms import TRANSFORMS, _decode


@TRANSFORMS.register()
def decode():
    """Encoded bytes -> u8[H,W,C], by the rule of `_decode.py`.

    Every other transform that needs pixels decodes by itself; this one says where it happens.
    """
    def transform(example, seed):
        return {**example, "image": _decode.pixels(example)}

    return transform
