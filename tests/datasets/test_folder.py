"""Folders of images: layouts, the seeded split, and every fault named."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from imgcls_jax import datasets, pipeline
from imgcls_jax.datasets import DATASETS
from imgcls_jax.errors import DataError


def write(path, color=(10, 20, 30)):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        Image.new("RGB", (6, 4), color).save(file, "PNG")


def folder(path, **arguments):
    return DATASETS.get("folder")(dir=str(path), **arguments)


def read_all(source, split):
    count = source.sizes[split]
    (batch,) = pipeline.eval_batches(datasets.split(source, split), [], batch_size=count,
                                     rows=slice(0, count), channels=3, classes=len(source.classes))
    return batch


@pytest.fixture
def split_folder(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for label, name in enumerate(("ant", "bee")):
            for i in range(count):
                write(f"{tmp_path}/{split}/{name}/{i}.png", (label, i, len(split)))
    return tmp_path


def test_a_folder_with_splits_gives_its_images_and_labels(split_folder):
    source = folder(split_folder)
    assert (source.classes, source.sizes) == (("ant", "bee"), {"train": 6, "val": 4})
    batch = read_all(source, "train")
    np.testing.assert_array_equal(batch["label"], [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(batch["image"][:, 0, 0], [(k, i, 5) for k in (0, 1)
                                                            for i in range(3)])
    assert datasets.split(source, "train").where(4) == f"{split_folder}/train/bee/1.png"
    assert source.files is None


def test_validation_is_another_name_of_val(split_folder):
    (split_folder / "val").rename(split_folder / "validation")
    assert folder(split_folder).sizes == {"train": 6, "val": 4}


def test_without_a_split_level_a_seed_splits_every_class(tmp_path):
    for name, count in (("ant", 20), ("bee", 10), ("one", 1)):
        for i in range(count):
            write(f"{tmp_path}/flat/{name}/{i}.png")
    source = folder(tmp_path / "flat", val_fraction=0.3)
    assert source.sizes == {"train": 14 + 7 + 1, "val": 6 + 3}
    every = {f"{name}/{i}.png" for name, count in (("ant", 20), ("bee", 10), ("one", 1))
             for i in range(count)}
    assert set(source.files["train"]) | set(source.files["val"]) == every
    assert not set(source.files["train"]) & set(source.files["val"])
    shutil.copytree(tmp_path / "flat", tmp_path / "moved")
    assert folder(tmp_path / "moved", val_fraction=0.3).files == source.files
    assert folder(tmp_path / "flat", val_fraction=0.3, seed=1).files != source.files


def test_classes_txt_gives_the_order(split_folder):
    (split_folder / "classes.txt").write_text("bee\nant\n")
    source = folder(split_folder)
    assert source.classes == ("bee", "ant")
    np.testing.assert_array_equal(read_all(source, "val")["image"][:, 0, 0, 0], [1, 1, 0, 0])


def test_content_decides_whatever_the_name_says(split_folder):
    ant = split_folder / "train" / "ant"
    (ant / "0.png").rename(ant / "UPPER.JPG")
    (ant / "1.png").rename(ant / "no_extension")
    (ant / "2.png").rename(ant / "other.dat")
    (ant / ".hidden").write_text("")
    (ant / "Thumbs.db").write_text("")
    source = folder(split_folder)
    assert source.sizes["train"] == 6
    assert set(read_all(source, "train")["image"][:3, 0, 0, 1]) == {0, 1, 2}


def test_names_that_are_no_utf8_work(tmp_path):
    for split in (b"train", b"val"):
        write(os.path.join(os.fsencode(tmp_path), split, b"caf\xe9", b"\xff \n.png"))
    source = folder(tmp_path)
    assert source.classes == (r"caf\xe9",)
    assert read_all(source, "train")["image"].shape == (1, 4, 6, 3)
    assert datasets.split(source, "train").where(0).endswith("train/caf\\xe9/\\xff \n.png")


def test_a_loop_of_links_is_walked_once(split_folder):
    (split_folder / "train" / "ant" / "loop").symlink_to(split_folder / "train" / "ant")
    (split_folder / "train" / "bee" / "up").symlink_to(split_folder / "train")
    (split_folder / "train" / "whole").symlink_to(split_folder / "train")
    assert folder(split_folder).sizes == {"train": 6, "val": 4}


FAULTS = {
    "missing": (lambda d: shutil.rmtree(d), "no such folder", "."),
    "empty": (lambda d: [shutil.rmtree(d / s) for s in ("train", "val")], "no class folders", "."),
    "no_train": (lambda d: shutil.rmtree(d / "train"), "no class folders", "."),
    "empty_class": (lambda d: (d / "train" / "cat").mkdir(), "'cat' has no images", "."),
    "class_only_in_val": (lambda d: write(f"{d}/val/cat/0.png"), "in val and not in train",
                          "val/cat"),
    "unsupported": (lambda d: (d / "train/ant/notes.doc").write_text("x"), "no image", "notes.doc"),
    "dangling_link": (lambda d: (d / "train/ant/x.png").symlink_to(d / "gone"), "no image",
                      "x.png"),
    "pipe": (lambda d: os.mkfifo(d / "train/ant/pipe"), "no image", "pipe"),
    "image_in_no_class": (lambda d: write(f"{d}/train/lost.png"), "no class folder", "lost.png"),
    "classes_txt": (lambda d: (d / "classes.txt").write_text("ant\nwasp\n"), "differ",
                    "classes.txt"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_folder_is_refused_with_its_place_and_a_remedy(split_folder, fault):
    spoil, what, where = FAULTS[fault]
    spoil(split_folder)
    with pytest.raises(DataError, match=what) as error:
        folder(split_folder)
    assert str(split_folder) in error.value.where and error.value.fix
    assert error.value.where.endswith(where.strip("."))
