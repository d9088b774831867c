"""From a file to the input tensor and to probabilities, as the publishers' own libraries do it.

What torchvision, timm, Keras, TensorFlow and OpenCV made of 24 files was recorded by
experiments/parity/preprocessing.py; none of them but TensorFlow is needed here.
"""

import functools
import io
import json

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from PIL import Image

from experiments.parity import pictures, preprocessing
from imgcls_jax import predict
from imgcls_jax.assembly.inputs import chain
from imgcls_jax.assembly.network import normaliser
from imgcls_jax.data.batches import eval_batches
from imgcls_jax.pretrained import catalogue, fetch, load
from imgcls_jax.transforms import TRANSFORMS, _opencv
from imgcls_jax.types import Lookup, Weights

FILES = pictures.files()
# What is transparent lies on white here, and shows the hidden colors where Pillow's own conversion
# drops alpha, as all of these publishers do: tests/data/decoding has that rule.
OPAQUE = [i for i, data in enumerate(FILES.values())
          if not Image.open(io.BytesIO(data)).has_transparency_data]
TIE = 0.01  # logits; two answers so near are one


@functools.cache
def recorded(part: str) -> dict:
    with np.load(pictures.FOLDER / f"{part}.npz") as file:
        return dict(file)


PRESETS = {preset["name"]: {"part": part, **preset} for part in ("torch", "tensorflow", "opencv")
           for preset in json.loads(str(recorded(part)["presets"]))}


def weights(name: str) -> Weights | None:
    """The weights that are evaluated so; of the catalogue, where it has them."""
    preset = PRESETS[name]
    if preset.get("rows"):
        return catalogue.find(preset["rows"][0])[2]
    if "weights" in preset:
        return Weights(file="", top1=None, top5=None, licence="", **preset["weights"])
    return None


def transforms(name: str) -> tuple[dict, ...]:
    found = weights(name)
    return load.transforms(found) if found else tuple(PRESETS[name]["transforms"])


def images(transforms) -> np.ndarray:
    """u8[24,H,W,3]: the files on the path of every evaluation."""
    data = tf.constant(list(FILES.values()))
    split = Lookup(len(FILES), lambda i: {"image": data[i], "label": tf.constant(0)}, str)
    batches = eval_batches(split, chain(transforms, TRANSFORMS, "transforms"),
                                    batch_size=8, rows=slice(0, 8), channels=3)
    return np.concatenate([batch["image"] for batch in batches])


def presets():
    """Every one; by default the least image of each library and interpolation."""
    found, seen = [], set()
    size = {name: kept.image_size if (kept := weights(name)) else 224 for name in PRESETS}
    for name in sorted(PRESETS, key=size.get):
        first = transforms(name)[0]
        kind = PRESETS[name]["part"], *(first.get(key) for key in ("name", "library",
                                                                   "interpolation"))
        found.append(pytest.param(name, marks=pytest.mark.nightly if kind in seen else ()))
        seen.add(kind)
    return found


@pytest.mark.daily(6)
@pytest.mark.parametrize("name", presets())
def test_the_input_of_published_weights_is_that_of_their_own_transforms(name):
    arrays, unit, made = recorded(PRESETS[name]["part"]), PRESETS[name]["unit"], images(
        transforms(name))
    points = np.abs(np.stack([pictures.points(image) for image in made])
                    - arrays[f"{name}: points"] / unit)
    blocks = np.abs(np.stack([pictures.blocks(image) for image in made])
                    - arrays[f"{name}: blocks"] / preprocessing.FINE)
    by_pillow = transforms(name)[0].get("library") == "pillow"
    assert len(OPAQUE) == len(FILES) - 3
    for file, distance, part in zip(np.array(list(FILES))[OPAQUE], points[OPAQUE], blocks[OPAQUE],
                                    strict=True):
        assert distance.max() <= 1, file
        # Where TensorFlow does not round we do: 1/4 on average. OpenCV's weights round downwards.
        assert distance.mean() <= (0.1 if by_pillow else 0.3), file
        assert part.max() <= (0.1 if by_pillow else 0.2), file


@pytest.mark.parametrize("name", PRESETS)
def test_the_normalisation_of_published_weights_is_their_own(name):
    arrays, preset = recorded(PRESETS[name]["part"]), PRESETS[name]
    found = weights(name)
    mean, std = (found.mean, found.std) if found else (preset["mean"], preset["std"])
    levels = arrays[f"{name}: points"][0, :preprocessing.VALUES] / np.float32(preset["unit"])
    ours = np.asarray(normaliser(mean, std, "float32")(levels))
    rounded = 0.0005 if preset["unit"] == 1 else 0.5 / preset["unit"]  # of the record, in levels
    np.testing.assert_array_less(
        np.abs(ours - arrays[f"{name}: values"]) * std * np.float32(255), rounded + 0.0005)


def test_all_weights_with_one_preset_have_it():
    seen = set()
    for name, preset in PRESETS.items():
        for row in preset.get("rows", ()):
            found = catalogue.find(row)[2]
            assert load.transforms(found) == transforms(name), row
            assert (found.mean, found.std) == (weights(name).mean, weights(name).std), row
            seen.add(row)
    known = {f"{model}/{tag}" for model in catalogue.models()
             for tag, found in catalogue.weights(model).items()
             if found.layout in ("torchvision", "timm")}
    assert seen == known, "experiments/parity/preprocessing.py says how to record a new preset"


@pytest.mark.daily(3)
@pytest.mark.parametrize("interpolation", _opencv.INTERPOLATIONS)
def test_resizing_is_opencvs_for_200_sizes(interpolation):
    number = tf.TensorSpec((), tf.int32)
    resize = tf.function(functools.partial(_opencv.resize, interpolation=interpolation),
                         autograph=False,
                         input_signature=(tf.TensorSpec((None, None, 3), tf.uint8), number, number))
    made = np.concatenate([resize(*drawn).numpy().reshape(-1)[::257].astype(int)
                           for drawn in pictures.resizes()])
    distance = np.abs(made - recorded("opencv")[f"resizes: {interpolation}"])
    assert distance.max() <= (0 if interpolation == "nearest" else 1)
    assert distance.mean() <= (0.15 if interpolation == "bilinear" else 0.1)  # which cuts off bits


@pytest.mark.daily(1)
@pytest.mark.parametrize("publisher, row", [
    ("torchvision", "resnet18/imagenet1k_v1"), ("google", None),
    pytest.param("timm", "vit_ti16/deit_in1k", marks=pytest.mark.nightly)])
def test_probabilities_of_files_are_those_of_the_reference(publisher, row, tmp_path, monkeypatch):
    arrays = recorded("torch")
    monkeypatch.setenv("IMGCLS_WEIGHTS", str(tmp_path))
    found = catalogue.find(row)[2] if row else weights("google 224")
    file = fetch.place(found) if row else tmp_path / "google.safetensors"
    tensors = pictures.weights(publisher, arrays[f"{publisher}: bias"])
    safetensors.numpy.save_file({name: np.ascontiguousarray(tensor)
                                 for name, tensor in tensors.items()}, file)
    monkeypatch.setattr(fetch, "check", lambda *_: None)  # these weights are small, not published
    model = predict.load(row) if row else predict.of_file(file, {
        "model": {"name": "vit_ti16"}, "precision": "auto", "eval_transforms":
        load.transforms(found), "data": {"mean": found.mean, "std": found.std}})
    made = model(list(FILES.values()), batch_size=8)
    top1 = arrays[f"{publisher}: top1"]
    assert len(set(top1.tolist())) > 20  # they are not one answer to everything
    assert ((made.argmax(1) == top1) | (arrays[f"{publisher}: ahead"] < TIE))[OPAQUE].all()
    expected = np.exp(arrays[f"{publisher}: logits"] - arrays[f"{publisher}: normaliser"][:, None])
    assert expected[:, -1].min() > 0.02  # and sure enough of it for 1e-2 to say something
    ours = np.c_[made[:, ::preprocessing.KEPT], made[np.arange(len(made)), top1]]
    np.testing.assert_allclose(ours[OPAQUE], expected[OPAQUE],
                               atol=1e-2 if publisher == "google" else 1e-4)
