"""Every mode of Pillow, and every bit depth of the formats that have several, by one rule."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

from imgcls_jax.data import decoding
from imgcls_jax.data.decoding import pillow
from imgcls_jax.errors import DataError

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a color type of PNG
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def decode():
    """The path of training, evaluation, prediction and `data show`, beside Pillow's own."""
    graph = tf.function(lambda data: decoding.decode(data, 3),
                        input_signature=[tf.TensorSpec((), tf.string)])

    def both(data):
        found = pillow.decode(data)
        np.testing.assert_array_equal(graph(data), found)
        return found

    return both


def png(color: int, depth: int, samples: np.ndarray, key=None, palette=None, alpha=None) -> bytes:
    """samples: [H,W,channels] of `depth` bits (PNG specification, sections 7 and 11)."""
    def chunk(kind, data):
        return (struct.pack(">I", len(data)) + kind + data
                + struct.pack(">I", zlib.crc32(kind + data)))

    height, width, _ = samples.shape
    bits = (samples.reshape(height, -1, 1).astype(np.int64) >> np.arange(depth)[::-1]) & 1
    rows = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    clear = (alpha if alpha is not None else
             None if key is None else struct.pack(f">{len(key)}H", *key))
    return (b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
            + (chunk(b"PLTE", palette.tobytes()) if palette is not None else b"")
            + (chunk(b"tRNS", bytes(clear)) if clear is not None else b"")
            + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
            + chunk(b"IEND", b""))


def eight(samples, depth):
    """The levels of `depth` bits as those of 8."""
    return samples >> 8 if depth == 16 else samples * (255 // (2**depth - 1))


@pytest.mark.parametrize("with_key", [False, True])
@pytest.mark.parametrize("color, depth", [
    *((0, depth) for depth in (1, 2, 4, 8, 16)), (2, 8), (2, 16)])
def test_png_of_gray_and_color_with_and_without_a_transparent_level(
        decode, color, depth, with_key):
    count = CHANNELS[color]
    some = np.arange(min(2**depth, 64)) * max(2**depth // 64, 1)  # all levels, or every so many
    samples = np.repeat(some.reshape(1, -1, 1), count, -1)
    expected = np.broadcast_to(eight(samples, depth), (1, len(some), 3)).copy()
    for level in some[:: max(len(some) // 4, 1)] if with_key else [None]:
        found = decode(png(color, depth, samples,
                           key=None if level is None else (level,) * count))
        clear = samples[..., 0] == level
        np.testing.assert_array_equal(found, np.where(clear[..., None], 255, expected))


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("color", [4, 6])
def test_png_with_alpha_lies_on_white(decode, color, depth):
    samples = RNG.integers(0, 2**depth, (5, 7, CHANNELS[color]))
    levels = eight(samples, depth)
    alpha = levels[..., -1:] / 255
    expected = np.round(levels[..., :-1] * alpha + 255 * (1 - alpha))
    np.testing.assert_array_equal(decode(png(color, depth, samples)),
                                  np.broadcast_to(expected, (5, 7, 3)))


@pytest.mark.parametrize("with_alpha", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_png_with_a_palette(decode, depth, with_alpha):
    samples = RNG.integers(0, 2**depth, (5, 7, 1))
    palette = RNG.integers(0, 256, (2**depth, 3), np.uint8)
    alpha = RNG.integers(0, 256, 2**depth, np.uint8) if with_alpha else None
    share = np.ones(2**depth) if alpha is None else alpha / 255
    colors = np.round(palette * share[:, None] + 255 * (1 - share[:, None]))
    found = decode(png(3, depth, samples, palette=palette, alpha=alpha))
    np.testing.assert_array_equal(found, colors[samples[..., 0]])


def tiff(array) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, photometric="minisblack")
    return file.getvalue()


@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "u4", "f4"])
def test_tiff_with_levels_from_0_to_255_shows_them_in_any_type(decode, kind):
    levels = np.arange(256).reshape(8, 32)
    np.testing.assert_array_equal(decode(tiff(levels.astype(kind)))[..., 1], levels)


def test_tiff_of_unsigned_16_bits_is_shifted_and_floats_are_rounded(decode):
    deep = np.arange(0, 65536, 257).reshape(8, 32)
    np.testing.assert_array_equal(decode(tiff(deep.astype("u2")))[..., 0], deep >> 8)
    floats = np.float32([[0.4, 0.6, 1.5, 254.6]])
    np.testing.assert_array_equal(decode(tiff(floats))[0, :, 0], [0, 1, 2, 255])


@pytest.mark.parametrize("array", [
    np.array([[0, 256]], "i4"), np.array([[0, 4095]], "i2"), np.array([[-1, 9]], "i2"),
    np.array([[0, 2**32 - 1]], "u4"), np.array([[0, 255.5]], "f4"),
    np.array([[0, np.nan]], "f4"), np.array([[0, 0.5, 1]], "f4")])
def test_levels_whose_white_is_not_known_are_refused(array):
    with pytest.raises(DataError, match="0 to 255"):
        pillow.decode(tiff(array))


@pytest.mark.parametrize("top", [1, 100, 255, 65535])
def test_ppm_of_any_range_is_scaled_to_8_bits(decode, top):
    samples = np.linspace(0, top, 16).round().astype(">u2" if top > 255 else "u1")
    data = b"P5 16 1 %d\n" % top + samples.tobytes()
    exact = samples.astype(float) * 255 / top
    assert np.abs(decode(data)[0, :, 0] - exact).max() <= 1  # rounded, or of 16 bits shifted


MODES = {"1": 1, "L": 1, "LA": 2, "La": 2, "P": 3, "PA": 4, "RGB": 3, "RGBA": 4, "RGBa": 4,
         "RGBX": 4, "CMYK": 4, "YCbCr": 3, "HSV": 3, "I": 1, "F": 1, "I;16": 1, "I;16B": 1}


@pytest.mark.parametrize("mode", MODES)
def test_an_open_image_of_every_mode_of_pillow_shows_its_color(mode):
    """Of one color, made from RGB by Pillow; what has alpha is opaque."""
    gray = MODES[mode] < 3
    color = (204, 204, 204) if gray else (204, 102, 51)  # in the palette of the web
    source = Image.new("RGB", (4, 3), color)
    if mode == "1":
        color, source = (255,) * 3, Image.new("RGB", (4, 3), "white")
    if mode in ("I;16", "I;16B"):
        made = Image.new(mode, (4, 3), 204 << 8)
    else:
        made = source
        for step in {"La": ("LA", "La"), "RGBa": ("RGBA", "RGBa"), "PA": ("P", "PA"),
                     "I": ("L", "I"), "F": ("L", "F")}.get(mode, (mode,)):
            made = made.convert(step)
    found = pillow.pixels(made, 3)
    assert found.shape == (3, 4, 3) and found.dtype == np.uint8
    np.testing.assert_allclose(found[0, 0], color, atol=2)  # conversions to and fro round
    assert pillow.pixels(made, 1).shape == (3, 4, 1)


@pytest.mark.parametrize("form, options, mode", [
    *((form, options, mode) for mode in ("1", "L", "P", "RGB", "RGBA") for form, options in (
        ("BMP", {}), ("WEBP", {"lossless": True}), ("GIF", {}), ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}))),
    *(("PPM", {}, mode) for mode in ("1", "L", "RGB"))])
def test_formats_without_loss_give_the_image_back(decode, form, options, mode):
    levels = RNG.integers(0, 4, (5, 6, 3), np.uint8) * 85
    image = Image.fromarray(levels).convert(mode)
    file = io.BytesIO()
    image.save(file, form, **options)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode(file.getvalue()), expected)
