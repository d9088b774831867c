"""Small whole files of each format that others may give us, made by code, for test_hostile.py.

A seed is (inside, wrap): bytes, and a function that makes a file of them, with the checksums right,
so that what is changed inside is read and not refused at the door.
"""

import functools
import gzip
import io
import json
import pickle
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from imgcls_jax.pretrained import pth

Seed = tuple[bytes, Callable[[bytes], bytes]]


def whole(data: bytes) -> Seed:
    return data, bytes


def zipped(name: str, others: dict[str, bytes] | None = None,
           method: int = zipfile.ZIP_STORED) -> Callable[[bytes], bytes]:
    def wrap(data: bytes) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as archive:
            for key, value in {name: data, **(others or {})}.items():
                archive.writestr(zipfile.ZipInfo(key), value, method)
        return file.getvalue()

    return wrap


# ---- weights ------------------------------------------------------------------------------------

STORAGE = b"(U\7storagectorch\nFloatStorage\nU\1%dU\3cpuK\4tQ"


def tensor(storage: int, shape: bytes = b"K\2K\2\x86", strides: bytes = b"K\2K\1\x86") -> bytes:
    return (b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE % storage + b"K\0" + shape + strides
            + b"\x89ccollections\nOrderedDict\n)RtR")


@functools.cache
def weights_of_torch() -> list[Seed]:
    numbers = {f"a/data/{i}": np.arange(4, dtype="f4").tobytes() for i in range(2)}
    archive = zipped("a/data.pkl", {"a/byteorder": b"little", **numbers})
    model = b"\x80\2ccollections\nOrderedDict\n)Rq\1(U\1w" + tensor(0) + b"q\2U\1bh\2u}U\1mh\1sb."
    nested = (b"\x80\2}(U\5epochK\3U\5model}U\1w" + tensor(1, b"K\4\x85", b"K\1\x85")
              + b"sU\4loss](G?\xf0\0\0\0\0\0\0Neu.")
    frame = b"}\x94\x8c\1w\x94" + tensor(0) + b"s\x8c\4name\x94](\x8c\2\xc3\xa9N\x88C\1xes."
    framed = b"\x80\4\x95" + struct.pack("<Q", len(frame)) + frame
    head = b"".join(pickle.dumps(part, 2) for part in (
        pth.MAGIC, 1001, {"little_endian": True, "protocol_version": 1001}))
    tail = pickle.dumps(["0"], 2) + struct.pack("<q", 4) + np.arange(4, dtype="f4").tobytes()
    return [(model, archive), (nested, archive), (framed, archive),
            (model, lambda data: head + data + tail), whole(head + model + tail)]


@functools.cache
def safetensors() -> list[Seed]:
    def wrap(header: bytes) -> bytes:
        return struct.pack("<Q", len(header)) + header + bytes(range(24))

    one = {"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}
    two = {"b": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [16, 24]},
           "__metadata__": {"format": "pt"}, **one}
    return [(json.dumps(one).encode(), lambda header: wrap(header)[:-8]),
            (json.dumps(two).encode(), wrap), whole(wrap(json.dumps(two).encode()))]


@functools.cache
def arrays_of_numpy() -> list[Seed]:
    def npy(array) -> bytes:
        file = io.BytesIO()
        np.lib.format.write_array(file, array)
        return file.getvalue()

    flat, turned = npy(np.arange(6.0)), npy(np.asfortranarray(np.ones((2, 3), "f2")))
    return [(flat, zipped("w.npy")), (turned, zipped("a/b.npy", {"n.npy": npy(np.int32(3))})),
            (flat, zipped("w.npy", method=zipfile.ZIP_DEFLATED)), whole(zipped("w.npy")(flat))]


@functools.cache
def weights_of_keras() -> list[Seed]:
    import h5py

    found = []
    for new in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "w.h5"
            with h5py.File(path, "w", libver="earliest" if new else "latest") as file:
                if new:
                    layer = file.create_group("layers/conv2d_1/vars")
                    layer.attrs["name"] = "stem"
                    layer["0"], layer["1"] = np.ones((3, 3, 2, 2), "f4"), np.zeros(2, "f4")
                else:
                    file.attrs["layer_names"] = [b"conv", b"bn"]
                    for name, leaves in (("conv", 1), ("bn", 4)):
                        names = [f"{name}/{i}:0" for i in range(leaves)]
                        file.create_group(name).attrs["weight_names"] = [n.encode() for n in names]
                        for inner in names:
                            file[name][inner] = np.arange(4, dtype="f4")
            found.append(whole(path.read_bytes()))
    return found


@functools.cache
def harmful() -> dict[str, tuple[str, bytes]]:
    """(reader, file) of a few hundred bytes, which ask for gigabytes or for years."""
    shared: dict = {}
    for _ in range(14):
        shared = {str(i): shared for i in range(10)}
    four = {"a/data/0": bytes(16)}
    endless = tensor(0, b"J\0\0\0\x20\x85", b"K\0\x85")
    array = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,)}\n"
    npy = lambda shape: b"\x93NUMPY\1\0" + struct.pack("<H", len(array % shape)) + array % shape  # noqa: E731
    pickled, packed = zipped("a/data.pkl", four), zipped("a/data.pkl", four, zipfile.ZIP_DEFLATED)
    wide = (b"BM" + struct.pack("<IHHI", 70, 0, 0, 62) + struct.pack(
        "<IiiHHIIiiII", 40, 90_000_000, 1, 1, 8, 1, 8, 0, 0, 2, 2) + bytes(8) + b"\0\2\xff\xff\0\1")
    (heap, _), = (seed for seed in weights_of_keras() if b"layer_names" in seed[0])
    free = heap.index(struct.pack("<QQ", 0, 3912))  # the last object of its heap of names
    return {
        "a heap without end": ("h5", heap[:free] + bytes(16) + heap[free + 16:]),
        "shared containers": ("pth", pickled(pickle.dumps({"w": shared}, 2))),
        "a stride of 0": ("pth", pickled(b"\x80\2}U\1w" + endless + b"s.")),
        "an index of 2**27": ("pth", pickled(b"\x80\2}r\0\0\0\x08.")),
        "a pickle that inflates": ("pth", packed(b"\x80\2}." + bytes(1 << 27))),
        "a key of tuples": ("pth", pickled(b"\x80\2()q\0" + b"".join(
            b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60)) + b"t}h\x3cK\1s.")),
        "a shape of 10**10": ("npz", zipped("w.npy")(npy(10**10))),
        "an array that inflates": ("npz", zipped("w.npy", method=zipfile.ZIP_DEFLATED)(
            npy(1 << 25) + bytes(1 << 27))),
        "a deep header": ("npz", zipped("w.npy")(b"\x93NUMPY\1\0\x28\x23" + b"-" * 9000)),
        "deep rows": ("jsonl", b"[" * 100_000),
        "a label of 2**24": ("csv", b"path,label\na,0\nb,16777216\n"),
        "a deep description": ("description", b'{"a":' * 100_000),
        "deep folders": ("zip", zipped("a/" * 30_000 + "b.png")(b"x")),
        "endless digits": ("tar", summed(entry(b"x", b"6000 size=" + b"9" * 5989 + b"\n", b"x")
                                         + entry(b"a/b.png") + bytes(1024))),
        "rows left out of a BMP": ("image", wide),
    }


# ---- data ---------------------------------------------------------------------------------------


def image(form: str, mode: str = "RGB", size=(9, 7), **options) -> bytes:
    file = io.BytesIO()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (size[1], size[0], len(mode)), np.uint8)
    made = Image.fromarray(pixels[..., 0] if mode in "LP" else pixels)
    made.convert(mode).save(file, form, **options)
    return file.getvalue()


def chunked(data: bytes) -> bytes:
    """A PNG with the checksum of every chunk as it should be."""
    out, place = [data[:8]], 8
    while place + 8 <= len(data):
        length = int.from_bytes(data[place:place + 4], "big")
        body = data[place + 4:place + 8 + length]
        out.append(data[place:place + 4] + body + struct.pack(">I", zlib.crc32(body)))
        place += 12 + length
    return b"".join(out)


@functools.cache
def images() -> list[Seed]:
    rle = (b"BM" + struct.pack("<IHHI", 70, 0, 0, 62) + struct.pack(
        "<IiiHHIIiiII", 40, 8, 2, 1, 8, 1, 8, 0, 0, 2, 2) + bytes(8)
           + b"\4\1\0\2\4\0\0\0\x08\1\0\1")
    tag = struct.pack("<HHII", 256, 3, 1, 4) + struct.pack("<HHII", 257, 3, 1, 2)
    tiff = (b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 7) + tag
            + b"".join(struct.pack("<HHII", *row) for row in (
                (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 98), (279, 4, 1, 8)))
            + bytes(4) + bytes(range(8)))
    pngs = [image("PNG"), image("PNG", "RGBA"), image("PNG", "P", bits=2),
            image("PNG", "L", transparency=3)]
    return [*((data, chunked) for data in pngs), *map(whole, (
        image("JPEG"), image("JPEG", progressive=True), image("JPEG", "CMYK"), image("GIF", "P"),
        image("GIF", "L", save_all=True, append_images=[Image.new("L", (9, 7))]), image("BMP"), rle,
        image("WEBP"), image("WEBP", "RGBA", lossless=True), image("TIFF"), tiff,
        image("TIFF", "L", compression="tiff_lzw"), image("TIFF", "L", compression="packbits"),
        image("PPM"), image("PPM", "L"), b"P3 2 2 255\n" + b"1 " * 12, b"P2 2 2 65535\n1 2 3 4\n",
        b"P4 9 2\n" + bytes(4)))]


@functools.cache
def zips() -> list[Seed]:
    photo, other = image("PNG", size=(2, 2)), image("JPEG", size=(2, 2))
    names = {"b/2.jpg": other, "b/3.png": photo, "classes.txt": b"a\nb\n", "a/4": photo}
    stored, packed = (zipped("a/1.png", names, method)
                      for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    return [(photo, stored), whole(stored(photo)), (photo, packed), whole(packed(photo))]


def entry(name: bytes, data: bytes = b"", kind: bytes = b"0") -> bytes:
    header = bytearray(512)
    header[:len(name)] = name
    header[124:136], header[156:157] = b"%011o\0" % len(data), kind
    header[257:265] = b"ustar\x0000"
    return bytes(header) + data + bytes(-len(data) % 512)


def summed(data: bytes) -> bytes:
    """A tar with the checksum of whatever could be a header as it should be."""
    out = bytearray(data)
    for place in range(0, len(out) - 511, 512):
        block = out[place:place + 512]
        if block[257:262] == b"ustar":
            out[place + 148:place + 156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 256)
    return bytes(out)


@functools.cache
def tars() -> list[Seed]:
    photo = image("PNG", size=(2, 2))
    pax = b"".join(b"%d %s\n" % (len(text) + 4, text)
                   for text in (b"path=a/long.png", b"size=%05d" % len(photo)))
    inner = entry(b"x.png", photo) + bytes(1024)
    plain = (entry(b"a/1.png", photo) + entry(b"b/", kind=b"5") + entry(b"b/2.png", photo)
             + entry(b"b/3.png", photo) + bytes(1024))
    rich = (entry(b"g", b"20 path=a/gglobal.p\n", b"g") + entry(b"x", pax, b"x")
            + entry(b"a/short", photo) + entry(b"././@LongLink", b"b/" + b"n" * 120, b"L")
            + entry(b"b/n", photo) + entry(b"b/in.tar", inner)
            + entry(b"b/4.png", photo) + bytes(1024))
    return [(plain, summed), (rich, summed), (plain, lambda data: gzip.compress(summed(data), 1)),
            whole(gzip.compress(summed(plain), 1))]


@functools.cache
def tables() -> list[Seed]:
    return [whole(text.encode()) for text in (
        "path,label,split\na.png,cat,train\nb.png,dog,train\nc.png,cat,val\n",
        "path,label\n" + "".join(f"{i}.png,{i % 2}\n" for i in range(6)),
        'path,labels\n"a, ""b"".png",cat|dog\n"two\nlines.png",cat\nc.png,dog\n',
        "\ufeffpath,label\nä.png,é\n")]


@functools.cache
def rows_of_json() -> list[Seed]:
    def lines(*rows) -> Seed:
        return whole("\n".join(map(json.dumps, rows)).encode())

    return [lines(dict(path="a.png", label="cat", split="train"),
                  dict(path="b.png", label="dog", split="train"),
                  dict(path="c.png", label="cat", split="valid")),
            lines(dict(path="a.png", label=0), dict(path="b.png", label=1)),
            lines(dict(path="a.png", labels=["x", "y"]), dict(path="b.png", labels=[])),
            lines(dict(path="a.png", labels="[\"x\"]"), dict(path="b.png", labels="x|y"))]


@functools.cache
def descriptions() -> list[Seed]:
    """dataset.json, as of prepared data."""
    files = [{"file": "train-00000-of-00001.tfrecord", "count": 2, "bytes": 0, "sha256": ""}]
    return [whole(json.dumps({
        "version": 1, "name": "x", "classes": ["a", "b"], "kind": "multiclass", "channels": 3,
        "image_size": size, "splits": {"train": {"files": files, "count": 2}},
        "format": "tfrecord"}).encode()) for size in (None, [8, 8])]


@functools.cache
def configs() -> list[Seed]:
    from imgcls_jax import config

    return [whole(json.dumps(config.load("digits").config).encode())]
