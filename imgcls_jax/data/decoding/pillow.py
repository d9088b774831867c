"""The decoding rule in Pillow: the reference, and used for all that TensorFlow does not read."""

import contextlib
import functools
import io
from collections.abc import Iterator

import numpy as np
from PIL import Image, features

from imgcls_jax.errors import DataError

with contextlib.suppress(ImportError):  # the extra "heif"
    import pillow_heif

    pillow_heif.register_heif_opener()

PIXEL_LIMIT = 100_000_000
# These decoders take 16 bytes a pixel.
LIMITS = dict.fromkeys(("WEBP", "AVIF", "HEIF"), 50_000_000)
RLE_WIDTH = 1 << 16  # of a BMP: four of its bytes may make 255 rows, whatever its height is
# A progressive JPEG may go through all pixels for every scan of a dozen bytes. Scans are counted
# where pixels x bytes are more: below, no number of them takes long.
SCANS, SCANNED = 100, 1 << 36
BAND = 1 << 22  # pixels that are converted at once
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
    data = bytes(data)  # eager TensorFlow gives an array
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            check_size(image, data)
            return pixels(image, channels)
    except Image.DecompressionBombError as error:
        raise DataError(f"the image is over the limit of {PIXEL_LIMIT:,} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise DataError(f"not an image in a supported format ({', '.join(FORMATS)})") from error
    except DataError:
        raise
    except Exception as error:  # a damaged file may raise any exception
        raise DataError(f"the image is damaged: {error}") from error


def check_size(image: Image.Image, data: bytes):
    """DataError for an image whose header, as it was opened, asks for too much memory or time."""
    count = image.width * image.height
    limit = LIMITS.get(image.format or "", PIXEL_LIMIT)
    if count > limit:
        raise DataError(f"the image has {image.width} x {image.height} pixels, over the limit of "
                        f"{limit:,}" + f" for {image.format}" * (limit != PIXEL_LIMIT))
    if image.width > RLE_WIDTH and image.tile and image.tile[0][0] == "bmp_rle":
        raise DataError(f"the BMP is {image.width} pixels wide and packed, over the limit of "
                        f"{RLE_WIDTH:,}")
    if image.format in ("JPEG", "MPO") and count * len(data) > SCANNED and _scans(data) > SCANS:
        raise DataError(f"the JPEG has over {SCANS} scans")


def _scans(data: bytes) -> int:
    """The scans of the first image in the bytes of a JPEG, or as many as are too many."""
    found, place = 0, 2
    while found <= SCANS and place + 4 <= len(data):
        kind = data[place + 1]
        if data[place] != 0xFF or kind == 0xD9:  # not a marker, or the end
            break
        found += kind == 0xDA
        place += 2 + int.from_bytes(data[place + 2:place + 4], "big")
        if kind == 0xDA:  # its data last until a marker that is neither a byte FF nor a restart
            place = data.find(b"\xff", place)
            while 0 <= place < len(data) - 1 and (data[place + 1] in (0, 0xFF)
                                                  or 0xD0 <= data[place + 1] <= 0xD7):
                place = data.find(b"\xff", place + 1)
            if place < 0:
                break
    return found


def pixels(image: Image.Image, channels: int) -> np.ndarray:
    """An open image, of any mode -> u8[H,W,channels], by the same rule."""
    raw = image.tile[0][3] if getattr(image, "tile", None) else ""  # how a file stores a pixel
    raw = raw if isinstance(raw, str) else raw[0]
    image.load()
    key = image.info.get("transparency")
    if key is not None and raw in ("L;2", "L;4", "RGB;16B"):  # Pillow leaves it as in the file
        key = (tuple(level >> 8 for level in key) if raw == "RGB;16B" else
               key * (255 // (2 ** int(raw[2:]) - 1)))
    rows = max(BAND // max(image.width, 1), 1)

    def bands() -> Iterator[Image.Image]:
        """The image, or parts of it: a large one is not held in several forms at once."""
        for top in range(0, image.height, rows):
            yield image if rows >= image.height else image.crop(
                (0, top, image.width, min(top + rows, image.height)))

    deep = image.mode in ("I", "F") or image.mode.startswith("I;16")
    shifted = image.mode.startswith("I;16") or (image.mode == "I"
                                                and image.format in ("PNG", "PPM"))
    if deep and not shifted:
        _check_levels(image.mode, map(np.asarray, bands()))
    made = None
    for number, band in enumerate(bands()):
        found = _eight_bits(_gray(band, key, shifted) if deep else band, key, channels)
        if rows >= image.height:
            return found
        made = np.empty((image.height, image.width, channels), np.uint8) if made is None else made
        made[number * rows:(number + 1) * rows] = found
    return np.empty((0, image.width, channels), np.uint8) if made is None else made


def _eight_bits(image: Image.Image, key, channels: int) -> np.ndarray:
    """An image of 8 bits a channel, or fewer -> u8[H,W,channels]. key: what is transparent."""
    if key is not None and image.info.get("transparency") != key:
        image = image.copy()
        image.info["transparency"] = key
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB")
    return np.asarray(image) if channels == 3 else np.asarray(image.convert("L"))[..., None]


def _gray(image: Image.Image, key, shifted: bool) -> Image.Image:
    """Gray of 16 bits, 32 bits or floats, in the mode L or LA. shifted: the upper 8 bits of 16.

    Pillow's own conversion clips 16 bits to 255: nearly every pixel would be white.
    """
    deep = np.asarray(image)
    levels = np.clip(deep.astype(np.int64) >> 8, 0, 255) if shifted else np.rint(deep)
    made = Image.fromarray(levels.astype(np.uint8))
    if isinstance(key, int):  # the gray level that is transparent
        made.putalpha(Image.fromarray(np.where(deep == key, 0, 255).astype(np.uint8)))
    return made


def _check_levels(mode: str, parts: Iterator[np.ndarray]):
    """DataError unless these are levels from 0 to 255."""
    low, high, between = np.array([(part.min(), part.max(), (np.rint(part) != part).any())
                                   for part in parts], float).T
    low, high = low.min(), high.max()
    if not (low >= 0 and high <= 255):  # nor NaN
        raise DataError(f"pixels of {mode} (32 bits or signed) from {low:g} to {high:g}: "
                        "which level is white is not known, so they must be 0 to 255")
    if high <= 1 and between.any():
        raise DataError("pixels are floats from 0 to 1, and levels must be 0 to 255")


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
