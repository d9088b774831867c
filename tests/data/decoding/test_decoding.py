"""The decoding rule: every path gives Pillow's pixels, whatever the file is."""

import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding import pillow
from imgcls_jax.errors import DataError
from imgcls_jax.transforms import TRANSFORMS

HEIGHT, WIDTH = 61, 83


def picture() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    smooth = np.stack([3 * x, 4 * y, x + 2 * y], -1) % 256
    noise = np.random.default_rng(0).integers(0, 40, smooth.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def encode(image: Image.Image, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def png_16_bit(array: np.ndarray, key: tuple[int, ...] = ()) -> bytes:
    """A PNG of 16-bit gray or RGB, which Pillow cannot write. key: the transparent color."""
    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    kind = 0 if array.ndim == 2 else 2
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, kind, 0, 0, 0)
    clear = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) if key else b""
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + clear
            + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))


RGB = Image.fromarray(picture())
ALPHA = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
RGBA = Image.fromarray(np.dstack([picture(), ALPHA]))


def rotated(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


MANY = [RGB.transpose(Image.Transpose.ROTATE_180), RGB.point(lambda v: v // 2)]

FILES = {
    "jpeg_420": encode(RGB, "JPEG", quality=90, subsampling=2),
    "jpeg_422": encode(RGB, "JPEG", quality=50, subsampling=1),
    "jpeg_444_progressive": encode(RGB, "JPEG", quality=95, subsampling=0, progressive=True),
    "jpeg_gray": encode(RGB.convert("L"), "JPEG"),
    "jpeg_cmyk": encode(RGB.convert("CMYK"), "JPEG"),
    **{f"jpeg_exif_{n}": encode(RGB, "JPEG", exif=rotated(n)) for n in range(1, 9)},
    "jpeg_trailing_bytes": encode(RGB, "JPEG") + b"more",
    "png_rgb": encode(RGB, "PNG"),
    "png_rgba": encode(RGBA, "PNG"),
    "png_gray": encode(RGB.convert("L"), "PNG"),
    "png_gray_alpha": encode(RGBA.convert("LA"), "PNG"),
    "png_palette": encode(RGB.convert("P"), "PNG"),
    "png_palette_transparent": encode(RGB.convert("P"), "PNG", transparency=bytes(range(256))),
    "png_color_key": encode(RGB, "PNG", transparency=(1, 2, 3)),
    "png_1_bit": encode(RGB.convert("1"), "PNG"),
    "png_gray_color_key": encode(RGB.convert("L"), "PNG", transparency=7),
    "png_exif_rotated": encode(RGB, "PNG", exif=rotated(8)),
    "png_animated": encode(RGB, "PNG", save_all=True, append_images=MANY),
    "gif_transparent": encode(RGB.convert("P"), "GIF", transparency=3),
    "gif_animated": encode(RGB, "GIF", save_all=True, append_images=MANY),
    "webp_lossless_alpha": encode(RGBA, "WEBP", lossless=True, exact=True),
    "webp": encode(RGB, "WEBP", quality=80),
    "webp_animated_alpha": encode(RGBA, "WEBP", lossless=True, save_all=True, append_images=MANY),
    "bmp": encode(RGB, "BMP"),
    "tiff": encode(RGB, "TIFF"),
    "tiff_alpha": encode(RGBA, "TIFF"),
    "ppm": encode(RGB, "PPM"),
}
if "AVIF" in pillow.FORMATS:
    FILES["avif"] = encode(RGB, "AVIF")


def reference(data: bytes) -> np.ndarray:
    """Pillow's pixels, what is transparent laid on white in exact arithmetic."""
    image = Image.open(io.BytesIO(data))
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    levels = np.asarray(image.convert("RGBA")).astype(np.float64)
    alpha = levels[..., 3:] / 255
    return np.round(levels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


@pytest.fixture(scope="module")
def graphs():
    """The paths, traced once for all files, as in tf.data."""
    def box(height, width):
        return height // 5, width // 7, height // 2, width // 3

    def path(function):
        return tf.function(function, input_signature=[tf.TensorSpec((), tf.string)],
                           autograph=False)

    return {(name, channels): path(function) for channels in (1, 3) for name, function in (
        ("whole", lambda data, c=channels: decoding.decode(data, c)),
        ("fast", lambda data, c=channels: TRANSFORMS.bind(dict(name="decode", dct="fast"), "t")()(
            {"image": data, "channels": c}, None)["image"]),
        ("crop", lambda data, c=channels: decoding.decode_and_crop(data, c, box)))}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore:Palette images")  # from the reference
def test_every_path_gives_the_pixels_of_pillow(graphs, name, channels):
    data = FILES[name]
    expected = reference(data)
    if channels == 1:
        expected = np.asarray(Image.fromarray(expected).convert("L"))[..., None]
    np.testing.assert_array_equal(pillow.decode(data, channels), expected)
    np.testing.assert_array_equal(graphs["whole", channels](data), expected)
    top, left, height, width = HEIGHT // 5, WIDTH // 7, HEIGHT // 2, WIDTH // 3
    np.testing.assert_array_equal(graphs["crop", channels](data),
                                  expected[top:top + height, left:left + width])


@pytest.mark.parametrize("name", FILES)
def test_fast_decoding_is_tensorflows_own_default_for_jpeg_alone(graphs, name):
    data = FILES[name]
    made = graphs["fast", 3](data)
    jpeg = data.startswith(b"\xff\xd8")
    expected = tf.io.decode_jpeg(data, 3).numpy() if jpeg else pillow.decode(data)
    np.testing.assert_array_equal(made, expected)
    assert not jpeg or (expected != pillow.decode(data)).any()


@pytest.mark.parametrize("kind", ["gray", "rgb", "tiff"])
def test_16_bits_are_shifted_to_8_on_every_path(graphs, kind):
    values = np.arange(HEIGHT * WIDTH * 3).reshape(HEIGHT, WIDTH, 3) * 4 % 65536
    deep = values.astype(np.uint16)
    if kind == "rgb":
        data, expected = png_16_bit(deep), (deep >> 8).astype(np.uint8)
    else:
        data = encode(Image.fromarray(deep[..., 0]), "PNG" if kind == "gray" else "TIFF")
        expected = np.repeat((deep[..., :1] >> 8).astype(np.uint8), 3, -1)
    np.testing.assert_array_equal(pillow.decode(data), expected)
    np.testing.assert_array_equal(graphs["whole", 3](data), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_color_key_of_16_bits_is_transparent(graphs, channels):
    levels = np.array([[0, 1000, 40000, 65535]], np.uint16)
    deep = levels if channels == 1 else np.repeat(levels[..., None], 3, -1)
    expected = np.repeat(np.array([[0, 255, 156, 255]], np.uint8)[..., None], 3, -1)
    data = png_16_bit(deep, (1000,) * channels)
    np.testing.assert_array_equal(pillow.decode(data), expected)
    np.testing.assert_array_equal(graphs["whole", 3](data), expected)


def test_a_crop_of_a_jpeg_is_exact_at_every_place_of_it():
    data = FILES["jpeg_420"]
    expected, rng = reference(data), np.random.default_rng(2)

    @tf.function(input_signature=[tf.TensorSpec((4,), tf.int32)], autograph=False)
    def crop(box):
        return decoding.decode_and_crop(data, 3, lambda height, width: tf.unstack(box))

    for _ in range(60):
        height, width = rng.integers(1, HEIGHT + 1), rng.integers(1, WIDTH + 1)
        top, left = rng.integers(0, HEIGHT - height + 1), rng.integers(0, WIDTH - width + 1)
        np.testing.assert_array_equal(crop(np.array([top, left, height, width], np.int32)),
                                      expected[top:top + height, left:left + width])


def test_a_complete_jpeg_is_never_decoded_whole_for_a_crop(monkeypatch):
    class Whole(Exception):
        pass

    def decode(data, channels):
        raise Whole

    monkeypatch.setattr(decoding, "decode", decode)
    for name in ("jpeg_420", "jpeg_444_progressive", "jpeg_gray", "jpeg_exif_6"):
        crop = decoding.decode_and_crop(FILES[name], 3, lambda height, width: (3, 4, 5, 6))
        assert crop.shape == (5, 6, 3)
    for data in (FILES["jpeg_420"][:-16], FILES["jpeg_cmyk"], FILES["png_rgb"]):
        with pytest.raises(Whole):
            decoding.decode_and_crop(data, 3, lambda height, width: (3, 4, 5, 6))


@pytest.mark.parametrize("path", ["whole", "crop", "pillow"])
@pytest.mark.parametrize("damage", ["zero_bytes", "html", "half_jpeg", "jpeg_cut_at_the_end",
                                    "half_png"])
def test_a_damaged_file_raises_on_every_path(graphs, path, damage):
    jpeg, png = FILES["jpeg_420"], FILES["png_rgb"]
    data = {"zero_bytes": b"", "html": b"<html>404</html>", "half_jpeg": jpeg[:len(jpeg) // 2],
            "jpeg_cut_at_the_end": jpeg[:-16], "half_png": png[:len(png) // 2]}[damage]
    decode = pillow.decode if path == "pillow" else graphs[path, 3]
    with pytest.raises((DataError, tf.errors.OpError)):
        decode(data)


def test_what_is_not_supported_is_named_with_what_is(graphs):
    for data in (b"%PDF-1.7 ...", b"II*\0" + bytes(40), b"<svg></svg>"):
        with pytest.raises(DataError) as error:
            pillow.decode(data)
        assert "damaged" in error.value.what or "JPEG, PNG, GIF, BMP" in error.value.what
        with pytest.raises(tf.errors.OpError):
            graphs["whole", 3](data)


BOMBS = r"""
import io, resource, struct, sys, time, zlib
from PIL import Image
import tensorflow as tf
from imgcls_jax.data import decoding


def chunk(kind, data):
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def encode(kind, size, **options):
    file = io.BytesIO()
    Image.new("L" if kind == "GIF" else "RGB", size).save(file, kind, **options)
    return file.getvalue()


png = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 15000, 8, 2, 0, 0, 0))
       + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b""))
jpeg = bytearray(encode("JPEG", (64, 64)))
at = jpeg.index(b"\xff\xc0") + 5
jpeg[at:at + 4] = struct.pack(">HH", 60000, 60000)
webp = bytearray(encode("WEBP", (64, 64), lossless=True))
webp[21:25] = struct.pack("<I", 16382 | 16382 << 14)
gif = bytearray(encode("GIF", (64, 64)))
gif[6:10] = struct.pack("<HH", 60000, 60000)
bmp = bytearray(encode("BMP", (64, 64)))
bmp[18:26] = struct.pack("<ii", 60000, 60000)
bombs = dict(png=png, jpeg=bytes(jpeg), webp=bytes(webp), gif=bytes(gif), bmp=bytes(bmp))
good = encode("JPEG", (300, 300))
box = lambda height, width: (0, 0, height // 2, width // 2)
for decode in (lambda data: decoding.decode(data, 3),
               lambda data: decoding.decode_and_crop(data, 3, box)):
    decode = tf.function(decode, input_signature=[tf.TensorSpec((), tf.string)])
    decode(good)
    for name, data in bombs.items():
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        try:
            decode(data)
            print(name, "was decoded")
        except tf.errors.OpError as error:
            if "over the limit" not in str(error):
                print(name, error)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(name, f"{time.perf_counter() - began:.3f}", f"{grown:.1f}", file=sys.stderr)
        if grown > 100:
            print(name, "grew by", grown, "MB")
"""


@pytest.mark.nightly
def test_decompression_bombs_are_refused_before_they_take_memory():
    made = subprocess.run([sys.executable, "-c", BOMBS], capture_output=True, text=True,
                          timeout=120, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3",
                               "PYTHONPATH": os.pathsep.join(sys.path)})
    assert made.returncode == 0, made.stderr
    assert made.stdout == ""


@pytest.mark.parametrize("path, file_format", [("pillow", "PNG"), *(
    (path, kind) for path in ("whole", "crop", "pillow") for kind in ("TIFF", "GIF", "JPEG"))])
def test_a_decompression_bomb_is_refused_by_its_header(graphs, path, file_format, monkeypatch):
    data = encode(RGB, file_format)
    monkeypatch.setattr(pillow, "PIXEL_LIMIT", HEIGHT * WIDTH - 1)
    with pytest.raises(DataError, match="over the limit"):
        pillow.decode(data)
    if path != "pillow":  # traced anew, as the limit is a constant of the graph
        whole = lambda height, width: (0, 0, height, width)  # noqa: E731
        decode = {"whole": lambda: decoding.decode(data, 3),
                  "crop": lambda: decoding.decode_and_crop(data, 3, whole)}[path]
        with pytest.raises((DataError, tf.errors.OpError), match="over the limit"):
            decode()


def deep_files() -> dict[str, bytes]:
    levels = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    return {"png_gray_16": png_16_bit(levels, (7,)), "png_rgb_16": png_16_bit(
                np.dstack([levels] * 3), (0, 0, 0)),
            **{f"tiff_{mode}": encode(Image.fromarray((levels % 256).astype(dtype)), "TIFF")
               for mode, dtype in (("i32", np.int32), ("f32", np.float32), ("u16", np.uint16))}}


@pytest.mark.parametrize("name", [*FILES, *deep_files()])
def test_a_large_image_that_is_converted_in_parts_has_the_same_pixels(name, monkeypatch):
    data = {**FILES, **deep_files()}[name]
    expected = pillow.decode(data)
    monkeypatch.setattr(pillow, "BAND", 7 * WIDTH)
    np.testing.assert_array_equal(pillow.decode(data), expected)


def test_a_level_is_refused_in_whichever_part_it_is(monkeypatch):
    monkeypatch.setattr(pillow, "BAND", 7 * WIDTH)
    levels = np.zeros((HEIGHT, WIDTH), np.float32)
    for level, says in ((np.nan, "which level is white"), (256, "which level"), (0.5, "0 to 1")):
        levels[-9, 3] = level
        with pytest.raises(DataError, match=says):
            pillow.decode(encode(Image.fromarray(levels), "TIFF"))


@pytest.mark.filterwarnings("ignore:Image size")
def test_a_packed_bmp_is_refused_where_four_of_its_bytes_would_make_gigabytes():
    wide = (b"BM" + struct.pack("<IHHI", 70, 0, 0, 62) + struct.pack(
        "<IiiHHIIiiII", 40, 90_000_000, 1, 1, 8, 1, 8, 0, 0, 2, 2) + bytes(8))
    with pytest.raises(DataError, match="90000000 pixels wide and packed"):
        pillow.decode(wide + b"\0\2\xff\xff" * 4 + b"\0\1")


@pytest.mark.parametrize("progressive", [True, False])
@pytest.mark.parametrize("path", ["whole", "crop", "pillow"])
def test_a_jpeg_of_more_scans_than_any_has_is_refused(path, progressive, monkeypatch):
    """Each may go through all pixels: a megabyte of them would take minutes."""
    monkeypatch.setattr(pillow, "SCANNED", 0)
    data = encode(RGB.convert("L"), "JPEG", progressive=progressive)
    one = data[data.rindex(b"\xff\xda"):-2]
    many = data[:-2] + one * pillow.SCANS + b"\xff\xd9"
    whole = lambda height, width: (0, 0, height, width)  # noqa: E731
    decode = {"whole": lambda data: decoding.decode(data, 3), "pillow": pillow.decode,
              "crop": lambda data: decoding.decode_and_crop(data, 3, whole)}[path]
    with pytest.raises((DataError, tf.errors.OpError), match="over 100 scans"):
        decode(many)
    film = data + b"\xff\xda\0\4\0\0" * (pillow.SCANS + 1)  # phones put one after the image
    np.testing.assert_array_equal(decode(film), pillow.decode(data))


@pytest.mark.parametrize("name", [name for name in ("webp", "avif") if name in FILES])
def test_formats_that_take_more_memory_a_pixel_have_a_lower_limit(name, monkeypatch):
    monkeypatch.setattr(pillow, "LIMITS", dict.fromkeys(pillow.LIMITS, HEIGHT * WIDTH - 1))
    with pytest.raises(DataError, match=f"over the limit of 5,062 for {name.upper()}"):
        pillow.decode(FILES[name])
    pillow.decode(FILES["png_rgb"])


@pytest.mark.parametrize("given, channels", [(1, 3), (3, 1), (4, 3), (2, 1), (4, 1), (3, 3)])
def test_pixels_get_the_channels_that_are_asked_for(given, channels):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, given), np.uint8)
    color = image[..., :3] if given > 2 else np.repeat(image[..., :1], 3, -1)
    if given in (2, 4):
        alpha = image[..., -1:] / 255
        color = np.round(color * alpha + 255 * (1 - alpha)).astype(np.uint8)
    gray = np.asarray(Image.fromarray(color).convert("L"))[..., None]
    expected = color if channels == 3 else gray
    made = TRANSFORMS.get("decode")()({"image": tf.constant(image), "channels": channels}, None)
    np.testing.assert_array_equal(made["image"], expected)
