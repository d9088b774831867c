"""Files of weights: real ones of torch.save, damaged ones, and ones made to do harm."""

import collections
import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

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


def archive(path: Path, data: bytes, storages: dict[str, bytes] | None = None, compress=False):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", data)
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
