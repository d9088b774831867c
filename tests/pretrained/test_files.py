"""Files of weights: real ones of torch.save, damaged ones, and ones made to do harm."""

import collections
import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from imgcls_jax.errors import CheckpointError
from imgcls_jax.pretrained import files, pth

FOLDER = Path(__file__).parent / "files"


def expected():
    with np.load(FOLDER / "expected.npz") as file:
        return dict(file)


@pytest.mark.parametrize("name", ["archive", "stream", "wrapped"])
def test_a_file_of_torch_holds_its_tensors_to_the_bit(name):
    found, wanted = files.read(FOLDER / f"{name}.pth"), expected()
    assert {k for k in found if k in wanted} == set(wanted)
    for key, value in wanted.items():
        np.testing.assert_array_equal(found[key].astype(np.float32), value, strict=True)
    assert found["half"].dtype == np.float16 and found["count"].dtype == np.int64
    assert found["bfloat"].dtype.name == "bfloat16"


def test_a_pickled_module_is_refused_by_name():
    with pytest.raises(CheckpointError, match=r"torch\.nn\.modules\.linear\.Linear") as error:
        files.read(FOLDER / "module.pth")
    assert "nothing was executed" in error.value.what and "safetensors" in error.value.fix


@pytest.mark.parametrize("name", ["archive", "stream"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_told(tmp_path, name, share):
    whole = (FOLDER / f"{name}.pth").read_bytes()
    cut = tmp_path / "cut.pth"
    cut.write_bytes(whole[:int(len(whole) * share)])
    with pytest.raises(CheckpointError) as error:
        files.read(cut)
    assert error.value.where == str(cut) and error.value.fix


# ---- files made to do harm ------------------------------------------------------------------


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def archive(path: Path, data: bytes, storages: dict[str, bytes] | None = None, compress=False,
            deflate=False):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", data, zipfile.ZIP_DEFLATED if deflate else None)
        for key, value in (storages or {}).items():
            file.writestr(f"a/data/{key}", value, zipfile.ZIP_DEFLATED if compress else None)


def stream(data: bytes) -> bytes:
    parts = [pickle.dumps(part, 2) for part in (pth.MAGIC, 1001, {"little_endian": True})]
    return b"".join(parts) + data + pickle.dumps([], 2)


def payloads(marker: Path) -> dict[str, bytes]:
    touch = f"touch {marker}"
    dotted = b"\x80\x04\x8c\x0ctorch._utils\x8c\x1d_rebuild_tensor_v2.__globals__\x93."
    nested = collections.OrderedDict(weight=[Call(os.system, touch)])
    return {
        "system": pickle.dumps(Call(os.system, touch), 2),
        "eval": pickle.dumps(Call(eval, f"open({str(marker)!r}, 'w')"), 2),
        "exec through getattr": pickle.dumps(Call(getattr, Path(marker), "touch"), 4),
        "inside a state_dict": pickle.dumps(nested, 2),
        "a dotted name": dotted,
        "an old INST": f"(S'{touch}'\nios\nsystem\n.".encode(),
    }


@pytest.mark.parametrize("kind", payloads(Path("m")))
@pytest.mark.parametrize("form", ["archive", "stream", "renamed"])
def test_nothing_of_a_file_is_executed(tmp_path, kind, form):
    marker, path = tmp_path / "marker", tmp_path / "weights.pth"
    data = payloads(marker)[kind]
    if form == "stream":
        path.write_bytes(stream(data))
    else:
        path = tmp_path / "weights.bin" if form == "renamed" else path
        archive(path, data)
    with pytest.raises(CheckpointError) as error:
        files.read(path)
    assert not marker.exists() and error.value.where == str(path)


def tensor_pickle(offset, shape, strides, size=4, dtype="FloatStorage") -> bytes:
    """_rebuild_tensor_v2(storage 0, offset, shape, strides, False, OrderedDict())."""
    out = io.BytesIO()
    out.write(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(")
    out.write(b"(X\x07\x00\x00\x00storagectorch\n" + dtype.encode() + b"\nX\x01\x00\x00\x000"
              b"X\x03\x00\x00\x00cpu")
    number = lambda n: b"\x8a\x08" + struct.pack("<q", n)  # noqa: E731
    out.write(number(size) + b"tQ" + number(offset))
    for numbers in (shape, strides):
        out.write(b"(" + b"".join(map(number, numbers)) + b"t")
    out.write(b"\x89ccollections\nOrderedDict\n)RtR.")
    return b"\x80\x02}X\x01\x00\x00\x00w" + out.getvalue()[2:-1] + b"s."


def test_a_tensor_within_its_storage_is_read(tmp_path):
    archive(tmp_path / "w.pth", tensor_pickle(1, (2,), (2,)), {"0": np.arange(4.0, dtype="f4")})
    np.testing.assert_array_equal(files.read(tmp_path / "w.pth")["w"], [1, 3])


@pytest.mark.parametrize("offset, shape, strides, says", [
    (0, (5,), (1,), "beyond"), (3, (2,), (1,), "beyond"), (0, (2, 2), (1000, 1), "beyond"),
    (-1, (1,), (1,), "beyond"), (0, (2,), (-1,), "beyond"), (0, (-1,), (1,), "beyond")])
def test_a_tensor_that_reaches_beyond_its_storage_is_refused(tmp_path, offset, shape, strides,
                                                             says):
    archive(tmp_path / "w.pth", tensor_pickle(offset, shape, strides),
            {"0": np.arange(4.0, dtype="f4")})
    with pytest.raises(CheckpointError, match=says):
        files.read(tmp_path / "w.pth")


def test_a_compressed_storage_is_refused_before_it_is_inflated(tmp_path):
    archive(tmp_path / "w.pth", tensor_pickle(0, (4,), (1,)), {"0": bytes(10**7)}, compress=True)
    with pytest.raises(CheckpointError, match="compressed"):
        files.read(tmp_path / "w.pth")


def shared(levels: int) -> bytes:
    """Dicts that each hold the one below ten times: a few hundred bytes, 10**levels leaves."""
    inner: dict = {}
    for _ in range(levels):
        inner = {str(i): inner for i in range(10)}
    return pickle.dumps(inner, 2)


# A tuple of two, each a tuple of two, 60 deep, is number 60 of the memo: what looks at all of it,
# as its hash and its text do, takes years.
DOUBLED = b")q\0" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60)) + b"t1"


def out_of_proportion() -> dict[str, tuple]:
    """Archives of up to a few thousand bytes: what is said of them, the arguments of `archive`."""
    number, cell = struct.pack("<Q", 1 << 31), b"](" + b"](K\1K\1e" * 20_000 + b"eq\0"
    calls = b"ccollections\nOrderedDict\nh\0\x85R" * 20_000
    repeated = tensor_pickle(0, (1 << 28,), (0,), size=1)
    one_hash = b"".join(b"\x8a\x0a" + ((2**61 - 1) * i).to_bytes(10, "little") + b"N"
                        for i in range(1, 30_000))
    state = b"(K\3U\1>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb."
    return {
        "containers that share containers": ("far more", dict(data=shared(14))),
        "a key that is hashed for ever": (
            "keys", dict(data=b"\x80\x02(" + DOUBLED.replace(b"t1", b"t}h\x3cK\1s."))),
        "a name that is text without end": (
            "without a name", dict(data=b"\x80\x02(" + DOUBLED.replace(
                b"t1", b"t(U\7storagectorch\nFloatStorage\nh\x3cNK\1tQ."))),
        "a gigabyte from four bytes": ("far more", dict(data=repeated, storages={"0": bytes(4)})),
        "an index of 2**27 in the memo": ("no tensors", dict(data=b"\x80\x02}r\0\0\0\x08.")),
        "a bytearray of 2**31 bytes": (
            "an instruction", dict(data=b"\x80\x05\x96" + number + b".")),
        "text of 2**31 bytes": ("cut off", dict(data=b"\x80\x02X\xff\xff\xff\x7f.")),
        "a pickle that inflates": ("far more", dict(data=bytes(150 << 20), deflate=True)),
        "a list made a dict again and again": (
            "far more", dict(data=b"\x80\x02(" + cell + calls + b"t.")),
        "keys of one hash": ("keys", dict(data=b"\x80\x02}(" + one_hash + b"u.")),
        "a dtype with another state": (
            "with a state", dict(data=b"\x80\x02ctorch\nFloatStorage\n" + state)),
    }


@pytest.mark.parametrize("kind", out_of_proportion())
def test_memory_and_time_are_in_proportion_to_the_file(tmp_path, kind):
    path = tmp_path / "w.pth"
    says, arguments = out_of_proportion()[kind]
    archive(path, **arguments)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=says):
            files.read(path)
        assert tracemalloc.get_traced_memory()[1] < (100 << 20)
    finally:
        tracemalloc.stop()


def test_a_size_that_lies_is_not_inflated_further(tmp_path):
    path = tmp_path / "w.pth"
    archive(path, b"\x80\x02}." + bytes(150 << 20), deflate=True)
    data, said = path.read_bytes(), struct.pack("<I", 4 + (150 << 20))
    path.write_bytes(data.replace(said, struct.pack("<I", 1000)))
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=r"declares|CRC"):
        files.read(path)
    assert tracemalloc.get_traced_memory()[1] < (10 << 20)
    tracemalloc.stop()


def test_weights_that_are_tied_are_read_under_each_name(tmp_path):
    one = tensor_pickle(0, (4,), (1,))
    tied = one[:-2] + b"q\1sX\1\0\0\0vh\1s."
    archive(tmp_path / "w.pth", tied, {"0": np.arange(4.0, dtype="f4")})
    found = files.read(tmp_path / "w.pth")
    np.testing.assert_array_equal(found["w"], found["v"], strict=True)


def damaged_zips() -> dict[str, bytes]:
    def ended(count, begin):
        return b"PK\5\6" + bytes(4) + struct.pack("<HHIIH", 1, 1, count, begin, 0)

    return {"an end record alone": ended(1000, 99999),
            "its names cut off": b"PK\1\2" + bytes(9) + ended(13, 0)}


@pytest.mark.parametrize("kind", damaged_zips())
def test_a_damaged_zip_is_told(tmp_path, kind):
    (tmp_path / "w.pth").write_bytes(damaged_zips()[kind])
    with pytest.raises(CheckpointError, match="not a whole"):
        files.read(tmp_path / "w.pth")


def npz(path: Path, header: str, data: bytes = b"", method: int = zipfile.ZIP_STORED):
    text = header.encode() + b"\n"
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("w.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data)


@pytest.mark.parametrize("shape", ["(1000000000, 8)", f"({10**30},)", "(-1, -4)", "(2, 2)", "()"])
def test_a_shape_of_numpy_is_believed_only_with_its_numbers(tmp_path, shape):
    npz(tmp_path / "w.npz", f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}",
        bytes(12))
    with pytest.raises(CheckpointError, match="another shape"):
        files.read(tmp_path / "w.npz")


@pytest.mark.parametrize("header", ["-" * 9000 + "1", "(" * 9000, "[" * 90 + "]" * 90, "{}", "\0"])
def test_a_header_of_numpy_that_is_nested_or_none_is_told(tmp_path, header):
    npz(tmp_path / "w.npz", header)
    with pytest.raises(CheckpointError, match="numpy"):
        files.read(tmp_path / "w.npz")


@pytest.mark.parametrize("descr", ["'<U4'", "'<c8'", "'<M8[s]'", "[('a', '<f4')]"])
def test_arrays_of_other_than_numbers_are_refused(tmp_path, descr):
    npz(tmp_path / "w.npz", f"{{'descr': {descr}, 'fortran_order': False, 'shape': (0,)}}")
    with pytest.raises(CheckpointError, match="numbers"):
        files.read(tmp_path / "w.npz")


def test_arrays_of_numpy_that_inflate_out_of_proportion_are_refused(tmp_path):
    npz(tmp_path / "w.npz", f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({1 << 27},)}}",
        bytes(1 << 27), zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="more numbers than it has bytes"):
        files.read(tmp_path / "w.npz")


def test_arrays_of_numpy_are_read_in_any_order_and_compressed(tmp_path):
    arrays = {"f": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "s": np.float32(2),
              "zeros": np.zeros((1000, 1000), "f4"), "none": np.zeros((0, 3), "i8")}
    np.savez_compressed(tmp_path / "w.npz", **arrays)
    for name, value in files.read(tmp_path / "w.npz").items():
        np.testing.assert_array_equal(value, arrays[name], strict=True)


def hostile_safetensors() -> dict[str, bytes]:
    def with_header(header: dict, data=b"") -> bytes:
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data

    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return {
        "a huge header": struct.pack("<Q", 2**62) + b"{",
        "offsets beyond the file": with_header({"w": {**one, "data_offsets": [0, 1 << 40]}}),
        "a shape of other size": with_header({"w": {**one, "shape": [2**40]}}, b"0" * 8),
        "overlapping tensors": with_header({"v": one, "w": one}, b"0" * 8),
        "bytes behind the end": with_header({"w": one}, b"0" * 16),
        "no JSON": struct.pack("<Q", 4) + b"{{{{",
    }


@pytest.mark.parametrize("kind", hostile_safetensors())
def test_a_hostile_safetensors_file_is_told(tmp_path, kind):
    path = tmp_path / "w.safetensors"
    path.write_bytes(hostile_safetensors()[kind])
    with pytest.raises(CheckpointError, match="safetensors"):
        files.read(path)


@pytest.mark.parametrize("kind, dtype", [
    ("F8_E4M3", ml_dtypes.float8_e4m3fn), ("F8_E5M2", ml_dtypes.float8_e5m2),
    ("F8_E8M0", ml_dtypes.float8_e8m0fnu), ("BF16", ml_dtypes.bfloat16), ("U64", np.uint64)])
def test_numbers_of_a_safetensors_file_keep_their_type(tmp_path, kind, dtype):
    values = np.array([1, 2, 4]).astype(dtype)
    header = json.dumps({"w": {"dtype": kind, "shape": [3, 1],
                               "data_offsets": [0, values.nbytes]}}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + values.tobytes())
    np.testing.assert_array_equal(files.read(path)["w"], values[:, None], strict=True)


@pytest.mark.parametrize("kind, count", [("F4", 1), ("C64", 16)])
def test_numbers_that_numpy_or_a_model_lacks_are_refused_by_name(tmp_path, kind, count):
    header = json.dumps({"w": {"dtype": kind, "shape": [2], "data_offsets": [0, count]}}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(count))
    with pytest.raises(CheckpointError, match=f"numbers of the type {kind}"):
        files.read(path)


def test_numpy_files_hold_arrays_and_never_objects(tmp_path):
    np.savez(tmp_path / "good.npz", **{"a/kernel": np.ones((2, 3))})
    np.testing.assert_array_equal(files.read(tmp_path / "good.npz")["a/kernel"], np.ones((2, 3)))
    marker = tmp_path / "marker"
    np.savez(tmp_path / "bad.npz", w=np.array([Call(os.system, f"touch {marker}")], object))
    with pytest.raises(CheckpointError, match="never loaded"):
        files.read(tmp_path / "bad.npz")
    assert not marker.exists()


def test_the_format_is_told_by_content_and_not_by_name(tmp_path):
    save_file({"w": np.arange(3.0)}, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").rename(tmp_path / "w.bin")
    np.testing.assert_array_equal(files.read(tmp_path / "w.bin")["w"], np.arange(3.0))


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        files.read(tmp_path / "w.pth")


@pytest.mark.parametrize("prefix", ["model.", "state_dict.module.", "module.", "_orig_mod.",
                                    "state_dict_ema."])
def test_what_wraps_a_state_dict_is_taken_off(prefix):
    assert list(files.unwrap({f"{prefix}conv1.weight": np.ones(1), "epoch": np.ones(1)}
                             if prefix != "_orig_mod." else {f"{prefix}conv1.weight": np.ones(1)}
                             )) == ["conv1.weight"]
