"""Pipes and devices where a file is named: opening one would block, reading another never end."""

import contextlib
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgcls_jax import config, datasets, predict, untrusted
from imgcls_jax.cli import convert
from imgcls_jax.cli import predict as labels
from imgcls_jax.data.batches import eval_batches
from imgcls_jax.data.curation import examples
from imgcls_jax.datasets import _archive, _files
from imgcls_jax.errors import ConfigError, DataError, Failure
from imgcls_jax.evaluators import verification
from imgcls_jax.pretrained import files


@pytest.fixture
def pipe():
    """A function: path -> the path, at which a named pipe now is. Whoever opens it reads one byte:
    what does so fails its test, and does not block it."""
    made, ended = [], threading.Event()

    def serve(path):
        while not ended.is_set():
            with contextlib.suppress(OSError), open(path, "wb") as file:
                file.write(b"x")

    def make(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)
        made.append((path, threading.Thread(target=serve, args=[path], daemon=True)))
        made[-1][1].start()
        return path

    yield make
    ended.set()
    for path, thread in made:
        while thread.is_alive():
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            thread.join(0.01)


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "good.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)
    return path


def read_all(split) -> list:
    return [row for _, row in examples.each(split, lambda index, image, label: label, threads=1)]


def test_a_file_is_a_file(pipe, tmp_path):
    (tmp_path / "file").write_bytes(b"1234")
    (tmp_path / "link").symlink_to(pipe(tmp_path / "pipe"))
    assert untrusted.read(tmp_path / "file") == b"1234"
    for name, says in (("pipe", "a named pipe"), ("link", "a named pipe"), ("/dev/null", "device"),
                       (".", "directory"), ("none", "No such file")):
        with pytest.raises(OSError, match=says):
            untrusted.read(tmp_path / name)
    with pytest.raises(OSError, match="it has 4 bytes, over the limit of 3"):
        untrusted.read(tmp_path / "file", most=3)


@pytest.mark.parametrize("name, says", [
    ("pipe.png", "it is a named pipe, not a file"), ("link.png", "it is a named pipe, not a file"),
    ("file://{}/pipe.png", "it is a named pipe, not a file"), ("/dev/null", "it is a device"),
    ("huge.png", "over the limit"), ("gone.png", "No such file"), (".", "directory")])
def test_a_row_of_a_manifest(pipe, photo, tmp_path, name, says):
    (tmp_path / "link.png").symlink_to(pipe(tmp_path / "pipe.png"))
    with open(tmp_path / "huge.png", "wb") as file:
        file.truncate(untrusted.IMAGE + 1)  # takes no room on the disk
    name = name.format(tmp_path)
    (tmp_path / "m.csv").write_text(f"path,label\ngood.png,a\ngood.png,b\n{name},b\n")
    source = datasets.DATASETS.get("manifest")(path=str(tmp_path / "m.csv"), val_fraction=0.0)
    split = source.open("train")
    good, other, bad = read_all(split)
    assert (good, other) == (0, 1)
    assert says in bad.what and bad.where.endswith(os.path.basename(name))
    with pytest.raises(DataError, match=says) as caught:
        list(eval_batches(split, (), batch_size=3, rows=slice(0, 3), channels=3))
    assert caught.value.where.endswith(os.path.basename(name))


def test_an_entry_of_a_folder(pipe, photo, tmp_path):
    for name in "ab":
        (tmp_path / "d" / name).mkdir(parents=True)
        os.link(photo, tmp_path / "d" / name / "good.png")
    pipe(tmp_path / "d" / "a" / "pipe.png")
    (tmp_path / "d" / "b" / "null.png").symlink_to("/dev/null")
    pipe(tmp_path / "d" / "b" / "no_suffix")
    with datasets.collecting() as faults:
        datasets.DATASETS.get("folder")(dir=str(tmp_path / "d"), val_fraction=0.0)
    assert sorted(Path(fault.where).name for fault in faults) == ["no_suffix", "null.png",
                                                                   "pipe.png"]
    assert sorted(_files.Folder(tmp_path / "d").names) == [b"a/good.png", b"b/good.png"]


def paths() -> dict:
    """What takes a path: a function of (folder, a function that makes a pipe there)."""
    def dataset(name, **arguments):
        return datasets.DATASETS.get(name)(**arguments)

    def prepared(pipe, folder):
        pipe(folder / "dataset.json")
        dataset("prepared", dir=str(folder))

    def listed_classes(pipe, folder):
        pipe(folder / "classes.txt")
        (folder / "a").mkdir()
        Image.new("L", (2, 2)).save(folder / "a" / "0.png")
        dataset("folder", dir=str(folder), val_fraction=0.0)

    def image(pipe, folder):
        (found,) = read_all(predict._lookup([str(pipe(folder / "a.png"))], np.arange(1)))
        raise found

    def thresholds(pipe, folder):
        pipe(folder / "evaluations" / "best.npz")
        labels._threshold("best", folder, 0)

    def published(pipe, folder):
        pipe(folder / "a.mat")
        _files.place(folder, "a.mat")

    return {
        "a manifest": lambda pipe, folder: dataset("manifest", path=str(pipe(folder / "m.csv"))),
        "its classes": lambda pipe, folder: dataset(
            "tfrecord", files="x", classes=str(pipe(folder / "c.txt"))),
        "record files": lambda pipe, folder: dataset(
            "tfrecord", files=str(pipe(folder / "a.tfrecord")), classes=2),
        "dataset.json": prepared,
        "classes.txt": listed_classes,
        "an archive": lambda pipe, folder: _archive.Archive(os.fsencode(pipe(folder / "a.zip"))),
        "a published file": published,
        "a folder": lambda pipe, folder: dataset("folder", dir=str(pipe(folder / "a.tar"))),
        "weights": lambda pipe, folder: files.read(pipe(folder / "w.pth")),
        "a config": lambda pipe, folder: config.load(str(pipe(folder / "c.py"))),
        "labels": lambda pipe, folder: convert._labels(str(pipe(folder / "labels.txt"))),
        "pairs": lambda pipe, folder: verification._pairs(
            str(pipe(folder / "pairs.txt")), np.arange(2), 2, 0),
        "thresholds": thresholds,
        "an image to label": image,
    }


@pytest.mark.parametrize("kind", paths())
def test_a_path_that_a_user_gives(pipe, tmp_path, kind):
    with pytest.raises(Failure) as caught:
        paths()[kind](pipe, tmp_path)
    assert isinstance(caught.value, ConfigError) or str(tmp_path) in caught.value.where
