"""Files of Keras: real ones of two versions, damaged ones, and ones that lead elsewhere."""

import functools
import json
import sys
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest

from experiments.parity import compare
from imgcls_jax import tree
from imgcls_jax.__main__ import main
from imgcls_jax.errors import CheckpointError, EnvironmentFailure
from imgcls_jax.models import MODELS
from imgcls_jax.pretrained import _hdf5, catalogue, files, keras_h5, load, names
from imgcls_jax.types import Layout, ModelSpec
from tests import abstract

RECORDED = Path(__file__).parent / "files" / "keras.npz"
WIDTH = 8
CASES = [case for case in compare.cases() if case.startswith("keras_")]


def _spec(model: str) -> ModelSpec:
    return ModelSpec(name=model, **MODELS.facts(model))


def recorded() -> tuple[dict[str, bytes], dict[str, np.ndarray]]:
    """(files, their tensors), as experiments/parity/record_keras.py wrote them."""
    with np.load(RECORDED) as file:
        return ({name[len("file:"):]: file[name].tobytes() for name in file.files
                 if name.startswith("file:")},
                {name: file[name] for name in file.files if not name.startswith("file:")})


def layers(tensors) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.rpartition("/")[0] for name in tensors))


@pytest.mark.parametrize("kind", recorded()[0])
def test_a_file_of_keras_holds_its_tensors_to_the_bit(kind, tmp_path):
    data, expected = recorded()
    (tmp_path / "w.bin").write_bytes(data[kind])  # told by content
    read = files.read(tmp_path / "w.bin")
    nameless = kind == "3.3.3:new.weights.h5"
    assert ("conv2d_1/bias" in read) == nameless and ("stem_conv/kernel" in read) != nameless
    found = keras_h5.in_order(read, layers(expected))
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, strict=True)


def test_all_formats_are_recorded():
    assert sorted(recorded()[0]) == [f"{version}:{kind}" for version in ("3.15.1", "3.3.3")
                                     for kind in ("new.weights.h5", "old.h5")]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99, *(
    pytest.param(share, marks=pytest.mark.nightly) for share in (0.1, 0.9))])
@pytest.mark.parametrize("kind", recorded()[0])
def test_a_truncated_file_is_told(kind, share, tmp_path):
    whole = recorded()[0][kind]
    (tmp_path / "cut.h5").write_bytes(whole[:int(len(whole) * share)])
    with pytest.raises(CheckpointError, match="not a whole Keras file") as error:
        files.read(tmp_path / "cut.h5")
    assert error.value.where == str(tmp_path / "cut.h5") and "\n" not in error.value.what


def test_without_h5py_the_remedy_is_told(tmp_path, monkeypatch):
    (tmp_path / "w.h5").write_bytes(recorded()[0]["3.15.1:old.h5"])
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(EnvironmentFailure, match="h5py, which is not installed") as error:
        files.read(tmp_path / "w.h5")
    assert "pip install h5py" in error.value.fix


@pytest.mark.parametrize("program", [
    "os.kill(os.getpid(), signal.SIGSEGV)",  # as HDF5 2.0 does on some damaged files
    'print(\'{"name": "w", "dtype": "<f4", "shape": [9]}\'); os.kill(os.getpid(), signal.SIGSEGV)',
    'print("x" * 10**6)'])
def test_a_crash_of_the_library_is_an_error_like_any_other(tmp_path, monkeypatch, program):
    (tmp_path / "w.h5").write_bytes(recorded()[0]["3.15.1:old.h5"])
    (tmp_path / "reader.py").write_text(f"import os, signal\n{program}\n")
    monkeypatch.setattr(keras_h5, "READER", tmp_path / "reader.py")
    with pytest.raises(CheckpointError, match="the file is not a whole Keras file: "):
        files.read(tmp_path / "w.h5")


def test_a_folder_that_looks_like_a_package_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "w.h5").write_bytes(recorded()[0]["3.15.1:old.h5"])
    (tmp_path / "h5py.py").write_text("raise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    assert files.read(Path("w.h5"))


# ---- layouts --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_layers_have_the_order_of_keras_and_as_many_numbers_with_the_running_statistics(case):
    recorded = compare.load(case)
    names = recorded["names"].tolist()
    assert MODELS.facts(compare.ours(case)[0])["layouts"]["keras"].order == layers(names)
    fixed = sum(int(np.prod([int(n) for n in shape.split(",") if n]))
                for name, shape in zip(names, recorded["shapes"].tolist(), strict=True)
                if "/moving_" in name or name.startswith("normalization"))
    assert int(recorded["params"]) + fixed == int(recorded["total"])


@pytest.mark.parametrize("case", ["keras_densenet121", "keras_efficientnetb0"])
def test_what_is_written_has_the_names_and_shapes_of_keras(case):
    recorded = compare.load(case)
    expected = {name: shape for name, shape in zip(recorded["names"].tolist(),
                                                   recorded["shapes"].tolist(), strict=True)
                if not name.startswith("normalization")}
    model = compare.ours(case)[0]
    leaves = {path: np.random.default_rng(0).random(leaf.shape, np.float32)
              for path, leaf in tree.flatten(abstract.init(model)[1]).items()}
    layout = MODELS.facts(model)["layouts"]["keras"]
    tensors = names.to_tensors(leaves, layout)
    assert {name: ",".join(map(str, v.shape)) for name, v in tensors.items()} == expected
    found, difference = names.to_variables(tensors, leaves, layout)
    assert not difference
    for path, value in leaves.items():
        np.testing.assert_array_equal(found[path], value)


def test_channels_are_turned_and_rows_of_the_first_dense_layer_are_sorted():
    layout = Layout("keras", (("conv", "conv"), ("fc1", "fc1")), bgr="conv/kernel",
                    flattened=("fc1/kernel", 2))
    rng = np.random.default_rng(0)
    theirs = {"conv/kernel": rng.normal(size=(1, 1, 3, 5)), "fc1/kernel": rng.normal(size=(20, 4)),
              "fc1/bias": rng.normal(size=4)}
    wanted = {f"params/{name}": value for name, value in theirs.items()}
    found, difference = names.to_variables(theirs, wanted, layout)
    assert not difference
    x = rng.normal(size=(2, 2, 2, 3))
    maps = x[..., ::-1] @ theirs["conv/kernel"][0, 0]  # Keras gets BGR, and flattens channels last
    ours = x @ found["params/conv/kernel"][0, 0]
    np.testing.assert_allclose(ours, maps)
    np.testing.assert_allclose(
        ours.transpose(0, 3, 1, 2).reshape(2, -1) @ found["params/fc1/kernel"],
        maps.reshape(2, -1) @ theirs["fc1/kernel"])
    back = names.to_tensors(found, layout)
    for name, value in theirs.items():
        np.testing.assert_array_equal(back[name], value)


# ---- from a file to a workdir ---------------------------------------------------------------


@functools.cache
def shapes():
    """Of a narrow keras_resnet50."""
    module = MODELS.get("keras_resnet50")(1000, width=WIDTH)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    return jax.eval_shape(module.init, jax.random.key(0), images)


@functools.cache
def narrow():
    """(leaves by path, tensors of Keras in its order) of a narrow keras_resnet50."""
    rng = np.random.default_rng(0)
    leaves = {path: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
              for path, leaf in tree.flatten(shapes()).items()}
    layout = MODELS.facts("keras_resnet50")["layouts"]["keras"]
    tensors = names.to_tensors(leaves, layout)
    return leaves, {f"{layer}/{leaf}": tensors[f"{layer}/{leaf}"] for layer in layout.order
                    for leaf in ("kernel", "bias", *_hdf5.LEAVES[4])
                    if f"{layer}/{leaf}" in tensors}


def write(path: Path, tensors, kind: str):
    """As Keras does. kind: "new", "nameless" (Keras 3 up to 3.6), "old", "keras 1" (of the older
    format with other names)."""
    grouped: dict[str, list] = {}
    for name, value in tensors.items():
        grouped.setdefault(name.rpartition("/")[0], []).append((name, value))
    classes = {"norm": "batch_normalization", "dense": "dense", "conv": "conv2d"}
    with h5py.File(path, "w") as file:
        counts: dict[str, int] = {}
        for layer, values in grouped.items():
            if kind in ("new", "nameless"):
                key = classes[keras_h5.kind(layer)]
                number = counts[key] = counts.get(key, -1) + 1
                group = file.create_group(f"layers/{key}_{number}/vars" if number else
                                          f"layers/{key}/vars")
                if kind == "new":
                    group.attrs["name"] = layer
                for i, (_, value) in enumerate(values):
                    group[str(i)] = value
                continue
            layer = {"predictions": "fc1000"}.get(layer, layer) if kind == "keras 1" else layer
            group = file.create_group(layer)
            inner = [f"{layer}_{i}:0" if kind == "keras 1" else f"{name}:0"
                     for i, (name, _) in enumerate(values)]
            group.attrs["weight_names"] = [name.encode() for name in inner]
            for name, (_, value) in zip(inner, values, strict=True):
                group[name] = value
            counts[layer] = len(counts)
        if kind in ("old", "keras 1"):
            found = ["input_1", *counts]
            file.create_group("input_1").attrs["weight_names"] = np.zeros(0)
            # Keras splits a list of over 64 KB.
            for i, part in enumerate((found[:50], found[50:])):
                file.attrs[f"layer_names{i}"] = [name.encode() for name in part]


@pytest.mark.parametrize("kind", ["new", "nameless", "old", "keras 1"])
def test_each_format_gives_the_same_variables(kind, tmp_path):
    leaves, tensors = narrow()
    write(tmp_path / "w.h5", tensors, kind)
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes())
    spec = _spec("keras_resnet50")
    made = load.into(fresh, load.read(tmp_path / "w.h5", spec, tree.flatten(fresh)), spec)
    for path, value in tree.flatten(made).items():
        np.testing.assert_array_equal(value, leaves[path], err_msg=path)


def test_a_converted_file_is_normalised_as_keras_normalises(tmp_path):
    write(tmp_path / "mine.weights.h5", narrow()[1], "new")
    words = ["convert", "--model=keras_resnet50", f"--weights={tmp_path / 'mine.weights.h5'}",
             f"--workdir={tmp_path / 'w'}", f"--config.model.width={WIDTH}", "--size=64"]
    assert main(words) == 0
    data = json.loads((tmp_path / "w" / "config.json").read_text())["data"]
    np.testing.assert_allclose(np.multiply(data["mean"], 255), [123.68, 116.779, 103.939])
    np.testing.assert_allclose(np.multiply(data["std"], 255), 1)


def test_a_wrong_file_ends_the_command_with_4_and_names_tensors(tmp_path, capsys):
    tensors = dict(narrow()[1])
    del tensors["conv3_block1_0_conv/bias"]
    write(tmp_path / "w.h5", tensors, "new")
    assert main(["convert", "--model=keras_resnet50", f"--weights={tmp_path / 'w.h5'}",
                 f"--workdir={tmp_path / 'w'}", f"--config.model.width={WIDTH}"]) == 4
    error = capsys.readouterr().err
    assert "1 missing: params/stage2_block0/shortcut_conv/bias (conv3_block1_0_conv/bias)" in error
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("model", ["vgg16", "keras_resnet152"])
def test_a_file_of_another_name_is_normalised_as_the_published_one(model, tmp_path):
    write(tmp_path / "w.h5", {"predictions/kernel": np.zeros((2, 2), np.float32)}, "old")
    mean, std = load.normalisation(tmp_path / "w.h5", _spec(model))
    published = next(w for w in catalogue.weights(model).values() if w.layout == "keras")
    assert (mean, std) == (published.mean, published.std) and std == (1 / 255,) * 3


@pytest.mark.parametrize("variance, std", [
    ((0.229, 0.224, 0.225), (0.229, 0.224, 0.225)),  # published: deviations in its place
    ((0.0524, 0.0502, 0.0506), (0.229, 0.224, 0.225)), ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))])
def test_an_efficientnet_is_normalised_as_its_file_says(variance, std, tmp_path):
    tensors = {"normalization/mean": (0.485, 0.456, 0.406), "normalization/variance": variance,
               "normalization/count": 0}
    write(tmp_path / "w.h5", {k: np.float32(v) for k, v in tensors.items()}, "old")
    found = load.normalisation(tmp_path / "w.h5", _spec("tf_efficientnet_b0"))
    np.testing.assert_allclose(found[0], (0.485, 0.456, 0.406), atol=1e-6)
    np.testing.assert_allclose(found[1], std, atol=1e-3)


# ---- files made to do harm ------------------------------------------------------------------


def _external_group(file, folder):
    file["layers/conv2d/vars"] = h5py.ExternalLink(str(folder / "secret.h5"), "/vars")


def _external_tensor(file, folder):
    file.create_group("layers/conv2d/vars")["0"] = h5py.ExternalLink(str(folder / "secret.h5"), "0")


def _soft(file, folder):
    file["elsewhere"] = np.zeros(2)
    file.create_group("layers/conv2d/vars")["0"] = h5py.SoftLink("/elsewhere")


def _raw(file, folder):
    file.create_dataset("layers/conv2d/vars/0", (2,), "f4",
                        external=[(str(folder / "secret.bin"), 0, 8)])


def _virtual(file, folder):
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "0", (2,))
    file.create_virtual_dataset("layers/conv2d/vars/0", layout)


def _strings(file, folder):
    file["layers/conv2d/vars/0"] = "text"


def _references(file, folder):
    file["layers/conv2d/vars/0"] = np.array([file.ref], h5py.ref_dtype)


def _inflated(file, folder):
    file.create_dataset("layers/conv2d/vars/0", data=np.zeros(10**6), compression="gzip")


def _unwritten(file, folder):
    file.create_dataset("layers/conv2d/vars/0", (2**40,), "f8")


def _many(file, folder):
    value = file.create_dataset("v", data=np.zeros(10**4))
    for i in range(20):
        file.create_group(f"layers/conv2d_{i}/vars")["0"] = value


def _twice(file, folder):
    for i in (1, 2):
        group = file.create_group(f"layers/conv2d_{i}/vars")
        group.attrs["name"], group["0"] = "conv", np.zeros(2)


def _old_external(file, folder):
    file.attrs["layer_names"] = [b"conv"]
    file["conv"] = h5py.ExternalLink(str(folder / "secret.h5"), "/")


def _old_soft(file, folder):
    file.attrs["layer_names"], group = [b"conv"], file.create_group("conv")
    group.attrs["weight_names"] = [b"inner/kernel:0"]
    group["inner"] = h5py.SoftLink("/")
    file["kernel:0"] = np.zeros(2)


HOSTILE = [_external_group, _external_tensor, _soft, _raw, _virtual, _strings, _references,
           _inflated, _unwritten, _many, _twice, _old_external, _old_soft]


@pytest.mark.parametrize("make", HOSTILE)
def test_nothing_but_numbers_within_the_file_is_read(make, tmp_path):
    (tmp_path / "secret.bin").write_bytes(b"\0" * 8)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["0"] = file["vars/0"] = np.ones(2, np.float32)
    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        make(file, tmp_path)
    with pytest.raises(CheckpointError, match="only numbers within it are read") as error:
        files.read(tmp_path / "w.weights.h5")
    assert error.value.where == str(tmp_path / "w.weights.h5")


def test_a_tensor_that_is_said_to_be_there_and_is_not_is_named(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = [b"conv"]
        file.create_group("conv").attrs["weight_names"] = [b"conv/kernel:0"]
    with pytest.raises(CheckpointError, match=r"'conv/kernel:0' is missing in '/conv'"):
        files.read(tmp_path / "w.h5")
