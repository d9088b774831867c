"""Each kind of source: the same ids and bytes for any hosts and threads, and after a resume."""

import json
import shutil
import tarfile

import pytest

from imgcls_jax.datasets import DATASETS
from tests.datasets import test_records, test_tfds
from tests.datasets.sources import assert_a_function_of_the_step, png


def images(place):
    for i in range(21):
        path = place / "photos" / "train" / f"class{i % 3}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(i))
    return place / "photos"


def of_folder(place):
    return DATASETS.get("folder")(dir=str(images(place)))


def of_zip(place):
    return DATASETS.get("folder")(dir=shutil.make_archive(place / "a", "zip", images(place)))


def of_tar(place):
    with tarfile.open(place / "a.tar", "w") as archive:
        archive.add(images(place), "photos")
    return DATASETS.get("folder")(dir=str(place / "a.tar"))


def of_manifest(place):
    paths = sorted(images(place).rglob("*.png"))
    (place / "m.jsonl").write_text("".join(json.dumps(
        {"path": str(path), "label": path.parent.name, "split": "train"}) + "\n"
        for path in paths))
    return DATASETS.get("manifest")(path=str(place / "m.jsonl"))


def of_tfds(form):
    def made(place):
        test_tfds.ShapesForTest(data_dir=place, file_format=form).download_and_prepare()
        return DATASETS.get("tfds")(dataset="shapes_for_test", data_dir=str(place))

    return made


def without_files(name):
    return lambda place: DATASETS.get(name)()


KINDS = {"digits": without_files("digits"), "mnist5k": without_files("mnist5k"),
         "tfds tfrecord": of_tfds("tfrecord"),
         "tfds array_record": of_tfds("array_record"), "folder": of_folder, "tar": of_tar,
         "manifest": of_manifest, "synthetic": without_files("synthetic"), "zip": of_zip,
         **{kind: lambda place, kind=kind: test_records.source(kind, place)
            for kind in test_records.KINDS}}


@pytest.mark.daily(6)
@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_a_function_of_the_step(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("IMGCLS_DATA_CACHE", str(tmp_path / "cache"))
    assert_a_function_of_the_step(KINDS[kind](tmp_path), monkeypatch)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_so_they_are_for_more_hosts_and_threads(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("IMGCLS_DATA_CACHE", str(tmp_path / "cache"))
    assert_a_function_of_the_step(KINDS[kind](tmp_path), monkeypatch, (4, 8), (1, 2), (1, 3))
