"""CIFAR and MNIST: from the files of their publishers, and by the real TFDS builders."""

import gzip
import struct

import numpy as np
import pytest

from imgcls_jax import datasets
from imgcls_jax.datasets import DATASETS
from imgcls_jax.errors import DataError
from tests.datasets import made

BATCHES = {"cifar10": ([f"data_batch_{number}.bin" for number in range(1, 6)], ["test_batch.bin"]),
           "cifar100": (["train.bin"], ["test.bin"])}
FOLDER = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}
ARCHIVE = {"cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz"}
URL = "https://www.cs.toronto.edu/~kriz/"


def cifar(name, per_file=4):
    """({file: bytes}, {split: {pixels: label}}): red, green and blue planes behind the labels."""
    files, expected = {}, {}
    rng = np.random.default_rng(0)
    classes = {"cifar10": 10, "cifar100": 100}[name]
    for split, batches in zip(("train", "test"), BATCHES[name], strict=True):
        expected[split] = {}
        for file in batches:
            rows = b""
            for label in rng.integers(0, classes, per_file, np.uint8):
                image = rng.integers(0, 256, (32, 32, 3), np.uint8)
                coarse = b"" if name == "cifar10" else bytes([19 - label // 5])
                planes = b"".join(image[..., channel].tobytes() for channel in range(3))
                rows += coarse + bytes([label]) + planes
                expected[split][image.tobytes()] = label
            files[f"{FOLDER[name]}/{file}"] = rows
    names = DATASETS.get(name)().classes
    text = "".join(f"{one}\n" for one in names).encode()
    if name == "cifar10":
        files[f"{FOLDER[name]}/batches.meta.txt"] = text + b"\n"
    else:
        files[f"{FOLDER[name]}/fine_label_names.txt"] = text
        coarse = "".join(f"coarse{number}\n" for number in range(20))
        files[f"{FOLDER[name]}/coarse_label_names.txt"] = coarse.encode()
    return files, expected


def check(source, expected):
    for split, images in expected.items():
        assert made.examples(source, split) == images


@pytest.mark.daily(3)
@pytest.mark.parametrize("name, packed", [
    ("cifar10", "folder"), ("cifar10", "tar.gz"), ("cifar100", "itself"),
    ("cifar10", "itself"), ("cifar100", "folder"), ("cifar100", "tar.gz")])
def test_cifar_is_read_from_its_binary_files(name, packed, tmp_path, monkeypatch):
    files, expected = cifar(name)
    made.sizes(monkeypatch, **{split: len(images) for split, images in expected.items()})
    if packed == "tar.gz":
        made.write(tmp_path, {ARCHIVE[name]: made.tar(files, "w:gz")})
    else:
        made.write(tmp_path, files)
    place = tmp_path / FOLDER[name] if packed == "itself" else tmp_path
    check(DATASETS.get(name)(data_dir=str(place)), expected)


def test_the_batches_of_cifar10_keep_their_order(tmp_path, monkeypatch):
    files, expected = cifar("cifar10")
    made.sizes(monkeypatch, train=20, test=4)
    made.write(tmp_path, files)
    read = made.batch(DATASETS.get("cifar10")(data_dir=str(tmp_path)), "train")
    assert [image.tobytes() for image in read["image"]] == list(expected["train"])


@pytest.mark.daily(1)
@pytest.mark.parametrize("name", BATCHES)
def test_cifar_prepared_by_the_real_tfds_builder(name, tmp_path, monkeypatch):
    files, expected = cifar(name)
    made.sizes(monkeypatch, **{split: len(images) for split, images in expected.items()})
    made.prepare(name, tmp_path, {URL + ARCHIVE[name]: made.tar(files, "w:gz")})
    source = DATASETS.get("tfds")(dataset=name, data_dir=str(tmp_path))
    assert source.classes == DATASETS.get(name)().classes
    check(source, expected)
    check(DATASETS.get(name)(data_dir=str(tmp_path)), expected)


def test_the_pickled_version_of_cifar_is_not_read(tmp_path):
    made.write(tmp_path, {"cifar-10-batches-py/data_batch_1": b"cos\nsystem\n(S'false'\ntR."})
    with pytest.raises(DataError, match="cifar-10-batches-bin") as error:
        datasets.split(DATASETS.get("cifar10")(data_dir=str(tmp_path)), "train")
    assert "the binary version, not the Python one" in error.value.fix


def test_cut_files_of_cifar_are_refused(tmp_path):
    files, _ = cifar("cifar10")
    made.write(tmp_path, files)
    file = tmp_path / FOLDER["cifar10"] / "data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-5])
    source = DATASETS.get("cifar10")(data_dir=str(tmp_path))
    with pytest.raises(DataError, match="not a multiple of the example size") as error:
        datasets.split(source, "train")
    assert error.value.where == str(file)
    with pytest.raises(DataError, match="10,000 images in 'test', but 4 were found"):
        datasets.split(source, "test")


def idx(array) -> bytes:
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(head + array.tobytes(), 1)


def digits(train=12, test=5):
    """({file: bytes}, {split: (images, labels)})."""
    files, expected = {}, {}
    rng = np.random.default_rng(1)
    for split, begin, count in (("train", "train", train), ("test", "t10k", test)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = rng.integers(0, 10, count, np.uint8)
        files[f"{begin}-images-idx3-ubyte.gz"] = idx(images)
        files[f"{begin}-labels-idx1-ubyte.gz"] = idx(labels)
        expected[split] = {image.tobytes(): label for image, label in
                           zip(images, labels, strict=True)}
    return files, expected


@pytest.mark.daily(2)
@pytest.mark.parametrize("name, home", [("mnist", ""), ("fashion_mnist", "raw"),
                                        ("mnist", "raw"), ("fashion_mnist", "")])
def test_mnist_is_read_from_its_idx_files(name, home, tmp_path, monkeypatch):
    files, expected = digits()
    made.sizes(monkeypatch, train=12, test=5)
    if home:
        made.write(tmp_path / {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[name] / "raw",
                   files)
    else:
        made.write(tmp_path, {file.removesuffix(".gz"): gzip.decompress(data)
                              for file, data in files.items()})
    source = DATASETS.get(name)(data_dir=str(tmp_path))
    assert (source.channels, source.image_size, len(source.classes)) == (1, (28, 28), 10)
    check(source, expected)


@pytest.mark.parametrize("spoil", [
    lambda data: data[:-20], lambda data: gzip.compress(gzip.decompress(data)[:-1]),
    lambda data: gzip.compress(b"\0\0\x0d\3" + gzip.decompress(data)[4:]), lambda data: b"",
    lambda data: gzip.compress(b"\0\0\x08\3\0")])
def test_damaged_idx_files_are_refused(spoil, tmp_path):
    files, _ = digits()
    made.write(tmp_path, files)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(DataError) as error:
        datasets.split(DATASETS.get("mnist")(data_dir=str(tmp_path)), "train")
    assert error.value.where == str(file) and "again" in error.value.fix


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "url"), [
    ("mnist", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    ("fashion_mnist", "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/")])
def test_mnist_prepared_by_the_real_tfds_builder(name, url, tmp_path):
    """Its builders insist on 60,000 and 10,000 images, which are the published counts."""
    files, expected = digits(60_000, 10_000)
    made.prepare(name, tmp_path, {url + file: data for file, data in files.items()})
    source = DATASETS.get(name)(data_dir=str(tmp_path))
    assert source.sizes == {"train": 60_000, "test": 10_000}
    assert DATASETS.get("tfds")(dataset=name, data_dir=str(tmp_path)).classes == source.classes
    check(source, expected)
    check(DATASETS.get(name)(data_dir=str(tmp_path)), expected)
