"""TFDS datasets, made here in both file formats; ImageNet's facts."""

import json
import shutil

import numpy as np
import pytest
import tensorflow_datasets

from imgcls_jax import datasets
from imgcls_jax.cli import _command as command
from imgcls_jax.data.batches import eval_batches
from imgcls_jax.datasets import DATASETS
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup, Shards

SIZES = {"train": 23, "test": 5}


def images(split):
    rng = np.random.default_rng(SIZES[split])
    return rng.integers(0, 256, (SIZES[split], 7, 9, 3), np.uint8)


class ShapesForTest(tensorflow_datasets.core.GeneratorBasedBuilder):
    VERSION = tensorflow_datasets.core.Version("1.0.0")

    def _info(self):
        features = tensorflow_datasets.features
        return tensorflow_datasets.core.DatasetInfo(builder=self, features=features.FeaturesDict({
            "image": features.Image(shape=(7, 9, 3)), "note": features.Text(),
            "label": features.ClassLabel(names=["round", "square", "flat"]),
            "shade": features.ClassLabel(names=["dark", "light"])}),
            supervised_keys=("image", "label"))

    def _split_generators(self, download_manager):
        return {split: self._generate_examples(split) for split in SIZES}

    def _generate_examples(self, split):
        for i, image in enumerate(images(split)):
            yield i, {"image": image, "note": str(i), "label": i % 3, "shade": i % 2}


class NumbersForTest(tensorflow_datasets.core.GeneratorBasedBuilder):
    VERSION = tensorflow_datasets.core.Version("1.0.0")

    def _info(self):
        features = tensorflow_datasets.features
        return tensorflow_datasets.core.DatasetInfo(
            builder=self, features=features.FeaturesDict({"value": features.Scalar(np.int64)}))

    def _split_generators(self, download_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield from ((i, {"value": i}) for i in range(3))


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def prepared(request, tmp_path_factory):
    place = tmp_path_factory.mktemp(request.param)
    ShapesForTest(data_dir=place, file_format=request.param).download_and_prepare()
    return request.param, str(place)


def test_a_prepared_dataset_gives_its_images_and_labels(prepared):
    file_format, place = prepared
    source = DATASETS.get("tfds")(dataset="shapes_for_test", data_dir=place)
    assert source.classes == ("round", "square", "flat")
    assert (source.sizes, source.image_size) == (SIZES, (7, 9))
    split = datasets.split(source, "train")
    assert type(split) is {"tfrecord": Shards, "array_record": Lookup}[file_format]
    (batch,) = eval_batches(split, [], batch_size=23, rows=slice(0, 23), channels=3,
                                     classes=3)
    # TFDS stores examples in an order of its own: the images tell which is which.
    number = {image.tobytes(): i for i, image in enumerate(images("train"))}
    found = [number[image.tobytes()] for image in batch["image"]]
    assert sorted(found) == list(range(23))
    np.testing.assert_array_equal(batch["label"], np.array(found) % 3)
    assert batch["label"].dtype == np.int32


def test_a_part_and_another_label_and_one_channel(prepared):
    _, place = prepared
    source = DATASETS.get("tfds")(dataset="shapes_for_test", data_dir=place, label="shade")
    assert source.classes == ("dark", "light")
    sizes = []
    for part in ("train[:40%]", "train[40%:]"):
        (batch,) = eval_batches(datasets.split(source, part), [], batch_size=16,
                                         rows=slice(0, 16), channels=1, classes=2)
        assert batch["image"].shape == (16, 7, 9, 1)
        sizes.append(batch["mask"].sum())
    assert sizes == [9, 14]


def test_a_dataset_that_is_not_prepared_says_how_to_prepare_it(tmp_path):
    with pytest.raises(DataError, match="not prepared") as error:
        DATASETS.get("tfds")(dataset="shapes_for_test", data_dir=str(tmp_path))
    assert f"tfds build shapes_for_test --data_dir={tmp_path}" in error.value.fix


def test_an_unknown_dataset_offers_the_nearest_names():
    with pytest.raises(DataError) as error:
        DATASETS.get("tfds")(dataset="cifar11")
    assert "cifar10" in error.value.fix


def test_a_dataset_without_images_is_refused(tmp_path):
    NumbersForTest(data_dir=tmp_path).download_and_prepare()
    with pytest.raises(DataError, match=r"hold the images \[\] and the class labels \[\]"):
        DATASETS.get("tfds")(dataset="numbers_for_test", data_dir=str(tmp_path))


def test_imagenet_is_known_without_its_data(tmp_path):
    source = DATASETS.get("imagenet2012")(data_dir=str(tmp_path))
    builder = tensorflow_datasets.builder("imagenet2012", data_dir=tmp_path)
    assert list(source.classes) == builder.info.features["label"].names
    assert source.sizes == {"train": 1_281_167, "validation": 50_000}
    assert datasets.size(source, "train[99%:]") == 12_812
    with pytest.raises(DataError, match="exists") as error:
        datasets.split(source, "train")
    assert f"tfds build imagenet2012 --data_dir={tmp_path}" in error.value.fix


@pytest.mark.daily(1)
def test_the_command_checks_and_prepares_it(prepared, tmp_path, capsys):
    """In both formats, by its name: counts, a damaged file, and the same images as records."""
    file_format, place = prepared
    words = ["tfds", "--config.data.dataset=shapes_for_test", f"--config.data.data_dir={place}"]
    assert command.main(["data", "check", "--json", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: split["examples"] for name, split in found["splits"].items()} == SIZES
    assert found["splits"]["train"]["classes"] == {"round": 8, "square": 8, "flat": 7}
    assert found["images"]["formats"] == {"PNG RGB": 28}
    assert command.main(["data", "prepare", *words, f"--out={tmp_path / 'out'}"]) == 0
    listed = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert listed["classes"] == ["round", "square", "flat"] and listed["image_size"] == [7, 9]
    assert [split["count"] for split in listed["splits"].values()] == [23, 5]
    copy = shutil.copytree(place, tmp_path / "copy")
    (path,) = copy.glob(f"**/*-train.{file_format}*")
    data = bytearray(path.read_bytes())
    data[1_000] ^= 1  # within the data of a record
    path.write_bytes(data)
    words[-1] = f"--config.data.data_dir={copy}"
    capsys.readouterr()
    assert command.main(["data", "check", "--json", *words]) == 3
    (error,) = json.loads(capsys.readouterr().out)["errors"]
    assert str(copy) in error["where"]


@pytest.mark.parametrize("damage", ["mid_record", "boundary", "zero", "missing"])
def test_files_with_fewer_records_than_the_metadata_says_are_refused(tmp_path, damage):
    ShapesForTest(data_dir=tmp_path, file_format="tfrecord").download_and_prepare()
    (path,) = tmp_path.glob("**/*-train.tfrecord*")
    data = path.read_bytes()
    kept = 0
    while data[kept + 12 + int.from_bytes(data[kept:kept + 8], "little") + 4:]:
        last, kept = kept, kept + 12 + int.from_bytes(data[kept:kept + 8], "little") + 4
    assert last
    path.write_bytes({"mid_record": data[:-9], "boundary": data[:kept]}.get(damage, b""))
    if damage == "missing":
        path.unlink()
    source = DATASETS.get("tfds")(dataset="shapes_for_test", data_dir=str(tmp_path))
    with pytest.raises(DataError, match={"zero": "found 0 whole records, the metadata says 23",
                                         "missing": "is missing"}.get(
            damage, "found 22 whole records, the metadata says 23")) as error:
        source.open("train")
    assert error.value.where == str(path) and error.value.fix
    source.open("test")
