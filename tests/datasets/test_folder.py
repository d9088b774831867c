"""Folders of images: layouts, the seeded split, and every fault named."""

import hashlib
import json
import os
import shutil
import tarfile
import unicodedata

import numpy as np
import PIL.features
import pytest
from PIL import Image

from imgcls_jax import datasets
from imgcls_jax.data import decoding
from imgcls_jax.data.batches import eval_batches
from imgcls_jax.data.decoding import pillow
from imgcls_jax.datasets import DATASETS, _layout
from imgcls_jax.errors import ConfigError, DataError


def write(path, color=(10, 20, 30)):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        Image.new("RGB", (6, 4), color).save(file, "PNG")


def folder(path, **arguments):
    return DATASETS.get("folder")(dir=str(path), **arguments)


def read_all(source, split):
    count = source.sizes[split]
    (batch,) = eval_batches(datasets.split(source, split), [], batch_size=count,
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
    # By the hashes of "0:CLASS/NUMBER.png", of which those below 0.3 are in val.
    held_out = [f"{name}/{i}.png" for name, count in (("ant", 20), ("bee", 10))
                for i in range(count) if int(hashlib.sha256(
                    f"0:{name}/{i}.png".encode()).hexdigest()[:13], 16) < 0.3 * 16**13]
    assert sorted(source.files["val"]) == sorted(held_out) and len(held_out) > 3
    assert folder(tmp_path / "flat", val_fraction=0.3, draw="count").sizes == {
        "train": 14 + 7 + 1, "val": 6 + 3}
    every = {f"{name}/{i}.png" for name, count in (("ant", 20), ("bee", 10), ("one", 1))
             for i in range(count)}
    assert set(source.files["train"]) | set(source.files["val"]) == every
    assert not set(source.files["train"]) & set(source.files["val"])
    shutil.copytree(tmp_path / "flat", tmp_path / "moved")
    assert folder(tmp_path / "moved", val_fraction=0.3).files == source.files
    assert folder(tmp_path / "flat", val_fraction=0.3, seed=1).files != source.files


@pytest.mark.parametrize("images", [2, 3, 50])
def test_whatever_comes_or_goes_the_other_images_stay_in_their_split(tmp_path, images):
    def names(each):
        return {f"{name}/{i}.png" for name in ("ant", "bee") for i in range(each)}

    def build(d, wanted):
        for name in wanted:
            write(f"{d}/{name}")
        return folder(d, val_fraction=0.3)

    few, more = build(tmp_path / "few", names(images)), build(tmp_path / "more", names(images + 9))
    held_out = [set(source.files["val"]) for source in (few, more)]
    if images == 50:
        assert held_out[0] == held_out[1] & names(images)
    # In a small class the one image of val may have been taken for want of a better one.
    assert len(held_out[0] - held_out[1]) <= 2
    (tmp_path / "splits.json").write_text(json.dumps(few.files))
    known = folder(tmp_path / "more", val_fraction=0.3, known=str(tmp_path / "splits.json"))
    assert set(known.files["val"]) & names(images) == held_out[0]
    assert {*known.files["train"], *known.files["val"]} == names(images + 9)
    assert all(any(path.startswith(name) for path in known.files[split])
               for name in ("ant", "bee") for split in ("train", "val"))


@pytest.mark.parametrize("text, says", [
    ("[]", "cannot be read"), ('{"train": "ant/0.png"}', "no lists of paths"),
    ('{"config": []}', "no lists of paths"), (None, "cannot be read"),
    ('{"train": ["cat/0.png"]}', "none of the 1 images")])
def test_known_splits_that_say_nothing_of_the_folder_are_refused(tmp_path, text, says):
    write(f"{tmp_path}/d/ant/0.png")
    write(f"{tmp_path}/d/ant/1.png")
    if text:
        (tmp_path / "splits.json").write_text(text)
    with pytest.raises(ConfigError, match=says):
        folder(tmp_path / "d", known=str(tmp_path / "splits.json"))


def test_known_splits_are_not_for_a_folder_with_its_own(split_folder):
    with pytest.raises(ConfigError, match="has its own splits"):
        folder(split_folder, known="splits.json")


def test_known_images_stay_where_they_were_with_a_draw_by_count(tmp_path):
    """The draw of runs that were begun with version 0.1.0."""
    for name in ("ant", "bee"):
        for i in range(10):
            write(f"{tmp_path}/d/{name}/{i}.png")
    before = folder(tmp_path / "d", draw="count", seed=1)
    (tmp_path / "splits.json").write_text(json.dumps(before.files))
    for name in ("ant", "bee"):
        for i in range(10, 20):
            write(f"{tmp_path}/d/{name}/{i}.png")
    after = folder(tmp_path / "d", draw="count", seed=1, known=str(tmp_path / "splits.json"))
    assert set(before.files["val"]) < set(after.files["val"])
    assert set(before.files["train"]) < set(after.files["train"]) and after.sizes["val"] == 8


def test_both_forms_of_unicode_are_drawn_alike(tmp_path):
    drawn = []
    for form in ("NFC", "NFD"):
        for name in ("café", "thé"):
            for i in range(20):
                write(f"{tmp_path}/{form}/{unicodedata.normalize(form, name)}/{i}é.png")
        source = folder(tmp_path / form, val_fraction=0.3)
        drawn.append([{unicodedata.normalize("NFC", path) for path in source.files[split]}
                      for split in ("train", "val")])
        (tmp_path / f"{form}.json").write_text(json.dumps(source.files))
    assert drawn[0] == drawn[1]
    other = folder(tmp_path / "NFD", val_fraction=0.9, known=str(tmp_path / "NFC.json"))
    assert {unicodedata.normalize("NFC", path) for path in other.files["val"]} == drawn[0][1]


@pytest.mark.parametrize("count, said", [(4, "all 4 images of class 'ant' are val"),
                                         (1, "the only image of class 'ant' is val")])
@pytest.mark.filterwarnings("ignore:.*single image")
def test_a_class_whose_images_are_all_known_as_val_is_told(tmp_path, count, said):
    for name in ("ant", "bee"):
        for i in range(count):
            write(f"{tmp_path}/photos/{name}/{i}.png")
    (tmp_path / "splits.json").write_text(json.dumps(
        {"train": [f"bee/{i}.png" for i in range(count)],
         "val": [f"ant/{i}.png" for i in range(count)]}))
    with pytest.raises(DataError) as error:
        folder(tmp_path / "photos", known=str(tmp_path / "splits.json"))
    assert error.value.what == f"{said} in config.data.known" and "add one" in error.value.fix


def test_classes_txt_gives_the_order(split_folder):
    (split_folder / "classes.txt").write_text("\ufeffbee\nant\n", encoding="utf-8")
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


@pytest.mark.parametrize("flat", [False, True])
def test_a_stray_file_is_left_out_with_one_line(split_folder, flat, monkeypatch):
    monkeypatch.setattr(pillow, "FORMATS", tuple(f for f in pillow.FORMATS if f != "HEIF"))
    monkeypatch.setattr(_layout, "extensions", lambda: (b".png", b".jpg"))
    root = split_folder / "train" if flat else split_folder
    ant = split_folder / "train" / "ant"
    for name in ("notes.txt", "IMG_1.HEIC", "clip.mov", "half.jpg.part", "empty"):
        (ant / name).write_text("x" * (name != "empty"))
    with pytest.warns(UserWarning) as told:
        source = folder(root)
    assert sum(source.sizes.values()) == (6 if flat else 10)
    (line,) = [str(one.message) for one in told]
    assert line.startswith(f"{root}: not images, and left out: ") and "\n" not in line
    assert "IMG_1.HEIC" in line and "and 1 more" in line
    assert line.endswith("; 1 of them HEIC, for which pip install pillow-heif; imgcls data check "
                         "lists all")
    with datasets.collecting() as found:
        folder(root)
    assert sorted(os.path.basename(one.where) for one in found) == [
        "IMG_1.HEIC", "clip.mov", "empty", "half.jpg.part", "notes.txt"]
    assert all(isinstance(one, datasets.LeftOut) for one in found)
    assert [one.fix for one in found if one.where.endswith("HEIC")] == ["pip install pillow-heif"]


def test_heic_is_read_where_the_extra_is_installed(split_folder):
    path = split_folder / "train/ant/IMG_1.HEIC"
    Image.new("RGB", (64, 48), (200, 30, 90)).save(path, "HEIF", quality=95)
    source = folder(split_folder)
    split = datasets.split(source, "train")
    (index,) = [i for i in range(split.size) if split.where(i) == str(path)]
    data = split.read(index)["image"].numpy()
    # HEVC works on YCbCr of a lower resolution: one color comes back within a few levels.
    np.testing.assert_allclose(pillow.decode(data).mean((0, 1)), (200, 30, 90), atol=4)
    np.testing.assert_array_equal(decoding.decode(data, 3), pillow.decode(data))


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


# ---- archives of a folder -----------------------------------------------------------------------


def pack(root, path):
    if path.suffix == ".zip":
        shutil.make_archive(path.with_suffix(""), "zip", root)
    else:
        with tarfile.open(path, "w") as archive:
            archive.add(root, "photos")
    return path


@pytest.mark.daily(2)
@pytest.mark.parametrize("kind, drawn", [("a.zip", False), ("a.tar", True), ("a.zip", True),
                                         ("a.tar", False)])
def test_an_archive_is_what_its_folder_is(kind, drawn, split_folder, tmp_path_factory):
    for i in range(9):
        write(f"{split_folder}/train/ant/deeper/x{i}.png", (i, 0, 0))
    (split_folder / ("train" if drawn else "") / "classes.txt").write_text("bee\nant\n")
    (split_folder / "train" / "ant" / ".hidden").write_text("")
    root = split_folder / "train" if drawn else split_folder
    packed = pack(root, tmp_path_factory.mktemp("packed") / kind)
    unpacked, archived = folder(root), folder(packed)
    assert (archived.classes, archived.sizes, archived.files) == (
        unpacked.classes, unpacked.sizes, unpacked.files)
    for split in unpacked.sizes:
        one, other = read_all(unpacked, split), read_all(archived, split)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
        opened = datasets.split(archived, split)
        np.testing.assert_array_equal(opened.labels(), one["label"])
        assert opened.where(0).startswith(f"{packed}: ")


def test_a_folder_around_the_layout_is_stepped_into(split_folder, tmp_path_factory):
    around = tmp_path_factory.mktemp("around")
    shutil.move(split_folder, around / "photos")
    assert folder(around).sizes == {"train": 6, "val": 4}


# ---- odd names and faults -----------------------------------------------------------------------


ODD = [b"caf\xe9", b"\xff\xfe", "🐝".encode(), b"line\nfeed", b"tab\t", b"x" * 240, b"'\"$(x)`",
       b" space "]


def test_eight_odd_names_are_classes_and_images(tmp_path):
    for split in (b"train", b"val"):
        for i, name in enumerate(ODD):
            write(os.path.join(os.fsencode(tmp_path), split, name, name + b".png"), (i, 0, 0))
    source = folder(tmp_path)
    batch = read_all(source, "train")
    assert json.loads(json.dumps(source.classes)) == list(source.classes)
    assert len(set(source.classes)) == 8
    order = [sorted(ODD).index(name) for name in ODD]
    np.testing.assert_array_equal(batch["image"][order, 0, 0, 0], range(8))
    packed = pack(tmp_path, tmp_path.parent / "odd.tar")
    np.testing.assert_array_equal(read_all(folder(packed), "train")["image"], batch["image"])


def test_avif_is_counted_where_pillow_reads_it(split_folder):
    if not PIL.features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    Image.new("RGB", (6, 4)).save(split_folder / "train" / "ant" / "x.avif")
    Image.new("RGB", (6, 4)).save(split_folder / "train" / "ant" / "y.dat", "AVIF")
    assert folder(split_folder).sizes["train"] == 8


def test_a_split_that_is_missing_is_told_with_those_that_are_there(split_folder):
    shutil.rmtree(split_folder / "val")
    source = folder(split_folder)
    with pytest.raises(ConfigError, match="no split 'val'") as error:
        datasets.split(source, "val")
    assert "['train']" in error.value.fix and "train[90%:]" in error.value.fix


def test_a_class_of_one_image_is_told(tmp_path):
    write(f"{tmp_path}/one/0.png")
    for i in range(5):
        write(f"{tmp_path}/many/{i}.png")
    with pytest.warns(UserWarning, match=r"single image.*\['one'\]"):
        source = folder(tmp_path)
    assert {name.split("/")[0] for name in source.files["val"]} == {"many"}


def unpacked_images(d):
    for split in ("train", "val"):
        shutil.rmtree(d / split)
        write(f"{d}/{split}/0.png")


def emptied(d):
    for path in (d / "val").rglob("*.png"):
        path.unlink()


FAULTS = {
    "missing": (lambda d: shutil.rmtree(d), "no such folder", "."),
    "empty": (lambda d: [shutil.rmtree(d / s) for s in ("train", "val")], "no class folders", "."),
    "no_train": (lambda d: shutil.rmtree(d / "train"), "no class folders", "."),
    "empty_split": (lambda d: (shutil.rmtree(d / "val"), (d / "val").mkdir()),
                    "'val' has no class folders", "val"),
    "no_images_in_split": (emptied, "'val' has no images", "."),
    "no_classes_in_splits": (unpacked_images, "'train' has no class folders", "train"),
    "two_vals": (lambda d: write(f"{d}/validation/ant/0.png"), "both `val` and", "."),
    "link_to_itself": (lambda d: (d / "train/ant/x").symlink_to("x"), "not an image",
                       "train/ant/x"),
    "device": (lambda d: (d / "train/ant/null.png").symlink_to("/dev/null"), "not an image",
               "null.png"),
    "empty_class": (lambda d: (d / "train" / "cat").mkdir(), "'cat' has no images", "."),
    "class_only_in_val": (lambda d: write(f"{d}/val/cat/0.png"), "in val but not in train",
                          "val/cat"),
    "dangling_link": (lambda d: (d / "train/ant/x.png").symlink_to(d / "gone"), "not an image",
                      "x.png"),
    "deep": (lambda d: write(f"{d}/train/ant/" + "x/" * 200 + "0.png"), "nested over 64 levels",
             "/x" * 64),
    "pipe": (lambda d: os.mkfifo(d / "train/ant/pipe"), "not an image", "pipe"),
    "image_in_no_class": (lambda d: write(f"{d}/train/lost.png"), "not in a class folder",
                          "lost.png"),
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


# ---- names of splits ----------------------------------------------------------------------------

LAYOUTS = [  # (folders of the upper level, the splits that they are)
    (("Train", "Val"), "train val"), (("TRAIN", "TEST"), "train test"),
    (("Training", "Testing"), "train test"), (("train", "valid"), "train val"),
    (("train", "dev"), "train val"), (("training", "Validation", "testing"), "train val test"),
    (("train", "Valid", "test"), "train val test"), (("train",), "train")]


def laid_out(root, *folders):
    for folder_ in folders:
        for label, name in enumerate(("ant", "bee")):
            write(f"{root}/{folder_}/{name}/0.png", (label, len(folder_), 0))
            write(f"{root}/{folder_}/{name}/1.png", (label, len(folder_), 1))


@pytest.mark.filterwarnings("ignore:.* as (train|val|test)")
@pytest.mark.parametrize("above", ["", "images", "archive/images"])
@pytest.mark.parametrize("names, splits", LAYOUTS)
def test_splits_are_recognised_by_any_of_their_usual_names(tmp_path, names, splits, above):
    laid_out(tmp_path / above, *names)
    (tmp_path / "README.md").write_text("photographs")  # beside the folder that is stepped into
    source = folder(tmp_path)
    assert (source.classes, source.sizes) == (("ant", "bee"), dict.fromkeys(splits.split(), 4))
    for name, split in zip(names, splits.split(), strict=True):
        opened = datasets.split(source, split)
        assert opened.where(0) == f"{tmp_path / above / name}/ant/0.png"


def test_what_was_taken_for_what_is_said_where_it_is_unusual(split_folder):
    (split_folder / "train").rename(split_folder / "Training")
    laid_out(split_folder, "extra")
    with pytest.warns(UserWarning) as told:
        folder(split_folder)
    said = [str(one.message) for one in told]
    assert said == [f"{split_folder}: Training as train",
                    f"{split_folder}: folders beside the splits are not read: ['extra']"]


@pytest.mark.parametrize("names", [("bus", "train"), ("Test", "bus", "car"), ("bus", "valid")])
def test_one_class_may_be_called_like_a_split(tmp_path, names):
    for name in names:
        for i in range(5):
            write(f"{tmp_path}/{name}/{i}.png")
    source = folder(tmp_path)
    assert source.classes == names and sum(source.sizes.values()) == 5 * len(names)


@pytest.mark.parametrize("names", [("Train", "Val"), ("train", "test", "bus"), ("TRAIN",)])
def test_folders_of_images_that_are_called_like_splits_are_refused_unless_stated(tmp_path, names):
    for name in names:
        for i in range(5):
            write(f"{tmp_path}/{name}/{i}.png")
    with pytest.raises(DataError, match="has no class folders") as error:
        folder(tmp_path)
    assert "config.data.split_folders=False" in error.value.fix
    assert folder(tmp_path, split_folders=False).classes == tuple(sorted(names))


@pytest.mark.parametrize("names", [
    ("train_set", "test_set"), ("train1", "val1"), ("training_data", "validation_data"),
    ("fold0", "fold1", "fold2"), ("TrainData", "TestData"), ("trainset", "testset", "extra"),
    ("2-train", "2-eval", "other"), ("train1", "train2"), ("split_a", "split_b", "other")])
@pytest.mark.parametrize("inner", ["", "ant/"])
def test_folders_whose_names_hold_those_of_splits_are_refused_unless_stated(tmp_path, names, inner):
    for name in names:
        write(f"{tmp_path}/{name}/{inner}0.png")
        write(f"{tmp_path}/{name}/{inner}1.png")
    with pytest.raises(DataError, match="folders have names of splits") as error:
        folder(tmp_path)
    assert names[0] in error.value.what and error.value.where == str(tmp_path)
    assert "rename them to train and val" in error.value.fix
    assert folder(tmp_path, split_folders=False).classes == tuple(sorted(names))


@pytest.mark.parametrize("names", [
    ("abbey", "train_railway", "train_station"), ("freight train", "bus"), ("attest", "trains"),
    ("banana_split", "scaffold"), ("contest", "interval", "restrain")])
def test_classes_that_have_a_word_of_splits_in_common_are_classes(tmp_path, names):
    for name in names:
        write(f"{tmp_path}/{name}/0.png")
        write(f"{tmp_path}/{name}/1.png")
    assert folder(tmp_path).classes == tuple(sorted(names))


@pytest.mark.parametrize("paths", [
    ("images/train/0.png", "images/val/0.png", "labels/train/0.txt"),
    ("ant/train/0.png", "ant/test/1.png", "bee/train/2.png", "bee/test/3.png"),
    ("images/train2017/0.png", "images/val2017/0.png", "annotations/x.json")])
def test_splits_within_classes_are_refused_unless_stated(tmp_path, paths):
    for path in paths:
        write(f"{tmp_path}/{path}")
        if not path.endswith("png"):
            (tmp_path / path).write_text("{}")
    with pytest.raises(DataError, match=r"folders within .* have names of splits") as error:
        folder(tmp_path)
    assert "DIR/train/CLASS" in error.value.fix
    assert "config.data.split_folders=False" in error.value.fix
    if "ant" in paths[0]:
        assert folder(tmp_path, split_folders=False).classes == ("ant", "bee")


@pytest.mark.parametrize("paths, said", [
    (("a/cats/0.png", "a/dogs/0.png", "b/cats/0.png", "b/dogs/0.png"),
     "every class has the same folders ['cats', 'dogs']"),
    (("animals/cat/0.png", "animals/dog/0.png", "things/car/0.png"),
     "the classes ['animals', 'things'] have no images but in folders, ['car', 'cat', 'dog']"),
    (("animals/cat/0.png", "animals/1.png", "things/car/0.png"), None)])
@pytest.mark.filterwarnings("ignore:.*single image")
def test_classes_without_images_of_their_own_are_told(tmp_path, paths, said, recwarn):
    for path in paths:
        write(f"{tmp_path}/{path}")
    folder(tmp_path)
    told = [str(one.message) for one in recwarn if "if these are" in str(one.message)]
    assert told == ([f"{tmp_path}: {said}: if these are the classes, move them up to this folder"]
                    if said else [])


@pytest.mark.parametrize("name", ["train", "test"])
def test_images_beside_a_class_with_folders_that_is_called_like_a_split_are_refused(tmp_path, name):
    for path in (f"{name}/steam/0.png", "cats/0.png", "dogs/0.png", "dogs/1.png"):
        write(f"{tmp_path}/{path}")
    with pytest.raises(DataError, match="images beside the split") as error:
        folder(tmp_path)
    assert error.value.what.endswith("in ['cats', 'dogs']")
    assert "config.data.split_folders=False" in error.value.fix
    with pytest.warns(UserWarning, match="single image"):
        assert folder(tmp_path, split_folders=False).classes == ("cats", "dogs", name)


def test_no_training_images_may_mean_that_a_class_is_called_like_a_split(tmp_path):
    for name in ("cats", "dogs", "test"):
        write(f"{tmp_path}/{name}/2020/0.png")
    with pytest.raises(DataError, match="no class folders for training") as error:
        folder(tmp_path)
    assert "config.data.split_folders=False" in error.value.fix


@pytest.mark.parametrize("names", [("train", "Train"), ("val", "validation"), ("dev", "valid"),
                                   ("test", "testing")])
def test_two_folders_of_one_split_are_refused(tmp_path, names):
    laid_out(tmp_path, *names, *(() if "train" in names else ("train",)))
    with pytest.raises(DataError, match="there are both"):
        folder(tmp_path)


def test_a_class_may_be_a_link_and_two_names_of_one_folder_are_refused(tmp_path):
    laid_out(tmp_path / "photos", "train")
    write(f"{tmp_path}/elsewhere/0.png")
    (tmp_path / "photos/train/cat").symlink_to(tmp_path / "elsewhere")
    assert folder(tmp_path / "photos").classes == ("ant", "bee", "cat")
    (tmp_path / "photos/train/dog").symlink_to(tmp_path / "photos/train/bee")
    with pytest.raises(DataError, match="'bee' and 'dog' are one folder"):
        folder(tmp_path / "photos")


def test_names_that_differ_in_unicode_form_are_one_class(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    write(f"{tmp_path}/train/{decomposed}/0.png")
    write(f"{tmp_path}/val/{composed}/0.png")
    source = folder(tmp_path)
    assert source.classes == (composed,) and source.sizes == {"train": 1, "val": 1}
    assert datasets.split(source, "train").where(0) == f"{tmp_path}/train/{decomposed}/0.png"
    (tmp_path / "classes.txt").write_text(decomposed + "\n")
    assert folder(tmp_path).classes == (composed,)
    write(f"{tmp_path}/train/{composed}/1.png")
    with pytest.raises(DataError, match="are one name"):
        folder(tmp_path)


@pytest.mark.parametrize("name", ["@eaDir", "#recycle", "$RECYCLE.BIN", ".ipynb_checkpoints",
                                  "System Volume Information", "lost+found", "__MACOSX"])
def test_what_systems_leave_in_folders_is_no_class(split_folder, name):
    for place in ("", "train", "train/ant"):
        write(f"{split_folder}/{place}/{name}/x.png")
    source = folder(split_folder)
    assert (source.classes, source.sizes) == (("ant", "bee"), {"train": 6, "val": 4})
