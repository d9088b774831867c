"""The decoding rule in Pillow: the reference, and used for all that TensorFlow does not read."""

import contextlib
import functools
import io

import numpy as np
from PIL import Image, features

from imgcls_jax.errors import DataError

with contextlib.suppress(ImportError):  # the extra "heif"
    import pillow_heif

    pillow_heif.register_heif_opener()

PIXEL_LIMIT = 100_000_000
SUFFIXES = {"JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "PNG": (".png",), "GIF": (".gif",),
            "BMP": (".bmp", ".dib"), "WEBP": (".webp",), "TIFF": (".tif", ".tiff"),
            "PPM": (".ppm", ".pgm", ".pbm", ".pnm"), "AVIF": (".avif",),
            "HEIF": (".heic", ".heif", ".hif")}
FORMATS = tuple(name for name in SUFFIXES if {
    "AVIF": "avif" in features.modules and features.check("avif"),  # Pillow 11.3
    "HEIF": "HEIF" in Image.OPEN}.get(name, True))


@functools.cache
def suffixes() -> tuple[str, ...]:
    """The endings of the names of files that can be read, in small letters."""
    return tuple(suffix for name in FORMATS for suffix in SUFFIXES[name])


def decode(data: bytes, channels: int = 3) -> np.ndarray:
    """Encoded bytes -> u8[H,W,channels], by the rule in data/decoding/__init__.py.

    DataError, without `where`, for what is not an image, is damaged or over 100 million pixels.
    """
    if not data:
        raise DataError("the image has zero bytes")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > PIXEL_LIMIT:
                raise DataError(f"the image has {image.width} x {image.height} pixels, "
                                f"over the limit of {PIXEL_LIMIT:,}")
            return pixels(image, channels)
    except Image.DecompressionBombError as error:
        raise DataError(f"the image is over the limit of {PIXEL_LIMIT:,} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise DataError(f"not an image in a supported format ({', '.join(FORMATS)})") from error
    except DataError:
        raise
    except Exception as error:  # a damaged file may raise any exception
        raise DataError(f"the image is damaged: {error}") from error


def pixels(image: Image.Image, channels: int) -> np.ndarray:
    """An open image, of any mode -> u8[H,W,channels], by the same rule."""
    raw = image.tile[0][3] if getattr(image, "tile", None) else ""  # how a file stores a pixel
    raw = raw if isinstance(raw, str) else raw[0]
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _eight_bits(image)
    image.load()
    key = image.info.get("transparency")
    if key is not None and raw in ("L;2", "L;4", "RGB;16B"):  # Pillow leaves it as in the file
        image = image.copy()
        image.info["transparency"] = (tuple(level >> 8 for level in key) if raw == "RGB;16B" else
                                      key * (255 // (2 ** int(raw[2:]) - 1)))
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB")
    return np.asarray(image) if channels == 3 else np.asarray(image.convert("L"))[..., None]


def _eight_bits(image: Image.Image) -> Image.Image:
    """Gray of 16 bits, 32 bits or floats, in the mode L or LA.

    Pillow's own conversion clips 16 bits to 255: nearly every pixel would be white.
    """
    deep, key = np.asarray(image), image.info.get("transparency")
    if image.mode != "F" and (image.mode != "I" or image.format in ("PNG", "PPM")):
        levels = np.clip(deep.astype(np.int64) >> 8, 0, 255)
    else:
        low, high = deep.min(), deep.max()
        if not (low >= 0 and high <= 255):  # nor NaN
            raise DataError(f"pixels of {image.mode} (32 bits or signed) from {low:g} to {high:g}: "
                            "which level is white is not known, so they must be 0 to 255")
        levels = np.rint(deep)
        if high <= 1 and (levels != deep).any():
            raise DataError("pixels are floats from 0 to 1, and levels must be 0 to 255")
    made = Image.fromarray(levels.astype(np.uint8))
    if isinstance(key, int):  # the gray level that is transparent
        made.putalpha(Image.fromarray(np.where(deep == key, 0, 255).astype(np.uint8)))
    return made


FILTERS = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR,
           "bicubic": Image.Resampling.BICUBIC, "lanczos3": Image.Resampling.LANCZOS,
           "area": Image.Resampling.BOX}


def resize(image: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    """u8[h,w,C] -> u8[height,width,C] as Pillow resizes; unchanged if the size is right."""
    if image.shape[:2] == (height, width):
        return image
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    resized = np.asarray(picture.resize((width, height), FILTERS[interpolation]))
    return resized.reshape(height, width, image.shape[-1])
