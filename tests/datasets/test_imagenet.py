"""ImageNet and the sets that share its classes, in the layouts they are distributed in."""

import json
import re

import numpy as np
import pytest
import tensorflow_datasets

from imgcls_jax import datasets
from imgcls_jax.__main__ import main
from imgcls_jax.datasets import DATASETS, imagenet21k
from imgcls_jax.errors import ConfigError, DataError
from tests.datasets import made

CLASSES = DATASETS.get("imagenet2012")().classes
PICKED = (0, 7, 65, 207, 999)  # class numbers
TRAIN = {f"{CLASSES[label]}/{CLASSES[label]}_{10 * i + 7}.JPEG": (made.jpeg(100 * label + i), label)
         for label in PICKED for i in range(3)}
# The first validation images and their classes.
TRUTH = {"ILSVRC2012_val_00000001.JPEG": "n01751748", "ILSVRC2012_val_00000002.JPEG": "n09193705",
         "ILSVRC2012_val_00000003.JPEG": "n02105855", "ILSVRC2012_val_00000004.JPEG": "n04263257"}
VAL = {name: made.jpeg(number) for number, name in enumerate(TRUTH, 1_000_000)}
VAL_LABELS = {made.pixels(VAL[name]): CLASSES.index(wnid) for name, wnid in TRUTH.items()}


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("IMGCLS_DATA_CACHE", str(tmp_path_factory.mktemp("cache")))


def labels(files):
    return {made.pixels(data): label for data, label in files.values()}


def only(files, folder=""):
    return {folder + name: data for name, (data, _) in files.items()}


def class_tars(files):
    by_class = {}
    for name, (data, _) in files.items():
        wnid, file = name.split("/")
        by_class.setdefault(f"{wnid}.tar", {})[file] = data
    return {name: made.tar(members) for name, members in by_class.items()}


def lay_out(root, layout):
    if layout == "tar":
        made.write(root, {"ILSVRC2012_img_train.tar": made.tar(class_tars(TRAIN)),
                          "ILSVRC2012_img_val.tar": made.tar(VAL)})
    else:
        made.write(root / "train", only(TRAIN))
        folder = {"flat": "val/", "validation": "validation/"}
        made.write(root, {(f"val/{TRUTH[name]}/" if layout == "folders" else folder[layout]) + name:
                          data for name, data in VAL.items()})


@pytest.mark.parametrize("layout", ["flat", "tar"])
def test_a_part_is_read_where_that_is_stated_and_only_then(layout, tmp_path, capsys):
    lay_out(tmp_path, layout)
    whole = DATASETS.get("imagenet2012")(data_dir=str(tmp_path))
    with pytest.raises(DataError, match="1,281,167 images in 'train', but 15 were") as error:
        whole.open("train")
    assert "config.data.partial=True" in error.value.fix
    with pytest.warns(UserWarning, match="in part: 15 of 1,281,167 in 'train', 4 of 50,000 in"):
        source = DATASETS.get("imagenet2012")(data_dir=str(tmp_path), partial=True)
    assert source.sizes == {"train": 15, "validation": 4} and len(source.classes) == 1000
    assert made.examples(source, "train") == labels(TRAIN)
    words = ["data", "check", "imagenet2012", f"--config.data.data_dir={tmp_path}"]
    assert main(words) == 3
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 12 and lines[-1].startswith("2 errors, 0 notes")
    assert main([*words, "--config.data.partial=True"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 15 and "note       992 times: has no examples in any split" in "\n".join(
        lines)


LAYOUTS = ("flat", "tar", "folders", "validation")


@pytest.mark.daily(2)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_imagenet_is_read_as_it_is_distributed(layout, tmp_path, monkeypatch):
    made.sizes(monkeypatch, train=len(TRAIN), validation=len(VAL))
    lay_out(tmp_path, layout)
    source = DATASETS.get("imagenet2012")(data_dir=str(tmp_path))
    assert made.examples(source, "train") == labels(TRAIN)
    assert made.examples(source, "validation") == VAL_LABELS


def test_every_layout_has_the_same_order(tmp_path, monkeypatch):
    made.sizes(monkeypatch, train=len(TRAIN), validation=len(VAL))
    orders = set()
    for layout in LAYOUTS:
        lay_out(tmp_path / layout, layout)
        source = DATASETS.get("imagenet2012")(data_dir=str(tmp_path / layout))
        orders.add(tuple(re.split("/|: ", path)[-1] for split in ("train", "validation")
                         for path in made.paths(source, split)))
    (order,) = orders
    assert list(order[-len(VAL):]) == sorted(TRUTH)
    # The training images are shuffled, once and for all: a part of them is no run of classes.
    names = sorted(name.split("/")[1] for name in TRAIN)
    assert [names.index(name) for name in order[:len(TRAIN)]] == [
        0, 2, 11, 9, 1, 8, 13, 5, 4, 3, 12, 10, 14, 6, 7]


def test_the_packaged_validation_labels_are_those_of_the_devkit():
    from imgcls_jax.datasets import _imagenet

    given = _imagenet.validation_labels()
    assert np.array_equal(np.bincount(given), np.full(1000, 50))
    # As val.txt of Caffe's ImageNet files begins, which was made from the devkit.
    assert given[:10].tolist() == [65, 970, 230, 809, 516, 57, 334, 415, 674, 332]
    assert [CLASSES[label] for label in given[:4]] == list(TRUTH.values())


def test_imagenet_prepared_by_the_real_tfds_builder(tmp_path, monkeypatch):
    made.sizes(monkeypatch, train=len(TRAIN), validation=len(VAL))
    lay_out(tmp_path / "manual", "tar")
    made.prepare("imagenet2012", tmp_path / "prepared", {}, tmp_path / "manual")
    place = str(tmp_path / "prepared")
    for source in (DATASETS.get("imagenet2012")(data_dir=place),
                   DATASETS.get("tfds")(dataset="imagenet2012", data_dir=place)):
        assert source.classes == CLASSES
        assert source.sizes == {"train": len(TRAIN), "validation": len(VAL)}
        assert made.examples(source, "train") == labels(TRAIN)
        assert made.examples(source, "validation") == VAL_LABELS


def test_another_count_than_the_published_one_is_refused(tmp_path):
    lay_out(tmp_path, "flat")
    source = DATASETS.get("imagenet2012")(data_dir=str(tmp_path))
    with pytest.raises(DataError, match="1,281,167 images in 'train', but 15 were found") as error:
        datasets.split(source, "train")
    assert error.value.where == str(tmp_path) and "config.data.partial=True" in error.value.fix


FAULTS = {
    "nothing": (lambda root: None, "none of train, ILSVRC2012_img_train.tar exists"),
    "another class": (lambda root: made.write(root, {"train/n99999999/a.JPEG": made.jpeg(0)}),
                      "'n99999999' is not one of ImageNet's 1,000 WordNet ids"),
    "no classes": (lambda root: made.write(root, {"train/cat/a.JPEG": made.jpeg(0)}), "'cat'"),
    "a cut archive": (lambda root: made.write(
        root, {"ILSVRC2012_img_train.tar": made.tar(class_tars(TRAIN))[:5000]}), "cut off")}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_imagenet_is_refused_with_the_layout_that_is_expected(fault, tmp_path):
    spoil, what = FAULTS[fault]
    spoil(tmp_path)
    with pytest.raises(DataError, match=what) as error:
        datasets.split(DATASETS.get("imagenet2012")(data_dir=str(tmp_path)), "train")
    assert str(tmp_path) in error.value.where and error.value.fix
    if fault == "nothing":
        assert "train/nXXXXXXXX/*.JPEG" in error.value.fix
        assert f"tfds build imagenet2012 --data_dir={tmp_path}" in error.value.fix


def test_a_flat_validation_folder_with_other_names_is_refused(tmp_path):
    made.write(tmp_path, {"val/image1.JPEG": made.jpeg(0)})
    with pytest.raises(DataError, match="not named as an ImageNet validation image") as error:
        datasets.split(DATASETS.get("imagenet2012")(data_dir=str(tmp_path)), "validation")
    assert error.value.where.endswith("val/image1.JPEG")


# ---- test sets of the same classes --------------------------------------------------------------


@pytest.mark.daily(2)
@pytest.mark.parametrize("packed", ["folder", "tar.gz", "itself", "tar"])
def test_imagenet_v2_has_numbers_for_folders(packed, tmp_path, monkeypatch):
    """Sorted as text, folder 10 would be class 2."""
    made.sizes(monkeypatch, test=7)
    files = {f"{label}/{label:040x}.jpeg": (made.jpeg(label), label)
             for label in (0, 1, 2, 10, 11, 100, 999)}
    name = "imagenetv2-matched-frequency"
    inside = only(files, f"{name}-format-val/")
    if packed in ("folder", "itself"):
        made.write(tmp_path, inside)
    else:
        made.write(tmp_path, {f"{name}.{packed}":
                              made.tar(inside, "w:gz" if packed == "tar.gz" else "w")})
    place = tmp_path / f"{name}-format-val" if packed == "itself" else tmp_path
    assert made.examples(DATASETS.get("imagenet_v2")(data_dir=str(place)), "test") == labels(files)


def test_the_variants_of_imagenet_v2_are_told_apart(tmp_path, monkeypatch):
    made.sizes(monkeypatch, test=1)
    for number, folder in enumerate(("matched-frequency", "threshold0.7", "top-images")):
        made.write(tmp_path, {f"imagenetv2-{folder}-format-val/{number}/a.jpeg": made.jpeg(number)})
    for number, variant in enumerate(("matched-frequency", "threshold-0.7", "top-images")):
        source = DATASETS.get("imagenet_v2")(data_dir=str(tmp_path), variant=variant)
        assert list(made.examples(source, "test").values()) == [number]
    wrong = tmp_path / "imagenetv2-top-images-format-val"
    with pytest.raises(DataError, match="exists"):
        datasets.split(DATASETS.get("imagenet_v2")(data_dir=str(wrong)), "test")


SETS = {"imagenet_a": ("imagenet-a", 7_500, 200), "imagenet_r": ("imagenet-r", 30_000, 200),
        "imagenet_sketch": ("sketch", 50_889, None)}


@pytest.mark.daily(3)
@pytest.mark.parametrize("name, packed", [
    ("imagenet_a", True), ("imagenet_r", False), ("imagenet_sketch", True),
    ("imagenet_a", False), ("imagenet_r", True), ("imagenet_sketch", False)])
def test_sets_of_wordnet_folders_keep_the_labels_of_the_1000_classes(name, packed, tmp_path,
                                                                      monkeypatch):
    folder, size, count = SETS[name]
    assert DATASETS.get(name)().sizes == {"test": size}
    source = DATASETS.get(name)(data_dir=str(tmp_path))
    assert source.classes == CLASSES
    chosen = source.subset or PICKED
    assert (len(source.subset) if source.subset else None) == count
    made.sizes(monkeypatch, test=4)
    files = {f"{CLASSES[label]}/0.01_{label}.jpg": (made.jpeg(label), label)
             for label in (chosen[0], chosen[1], chosen[3], chosen[-1])}
    inside = {f"{folder}/README.txt": b"?", **only(files, f"{folder}/")}
    archive = "ImageNet-Sketch.zip" if name == "imagenet_sketch" else f"{folder}.tar"
    made.write(tmp_path, {archive: made.tar(inside)} if packed else inside)
    source = DATASETS.get(name)(data_dir=str(tmp_path))
    assert made.examples(source, "test") == labels(files)


def test_the_200_classes_of_imagenet_r_and_a():
    """The first of them by the lists of their authors (hendrycks/imagenet-r, natural-adv-examples):
    goldfish, great white shark, hammerhead; stingray, goldfinch, junco."""
    first = {"imagenet_r": ("n01443537", "n01484850", "n01494475"),
             "imagenet_a": ("n01498041", "n01531178", "n01534433")}
    for name, wnids in first.items():
        subset = DATASETS.get(name)().subset
        assert tuple(CLASSES[label] for label in subset[:3]) == wnids
        assert list(subset) == sorted(set(subset))
    assert DATASETS.get("imagenet_r")().subset[:3] == (1, 2, 4)
    assert DATASETS.get("imagenet2012")().subset is None


BUILDERS = {
    "imagenet_a": ("https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar", "imagenet-a", "w"),
    "imagenet_r": ("https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar", "imagenet-r", "w"),
    "imagenet_v2": ("https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/main/"
                    "imagenetv2-top-images.tar.gz", "imagenetv2-top-images-format-val", "w:gz")}


@pytest.mark.daily(1)
@pytest.mark.parametrize("name", BUILDERS)
def test_test_sets_prepared_by_their_real_tfds_builders(name, tmp_path, monkeypatch):
    url, folder, mode = BUILDERS[name]
    variant = {"variant": "top-images"} if name == "imagenet_v2" else {}
    chosen = DATASETS.get(name)().subset or (2, 10, 999)
    made.sizes(monkeypatch, test=3)
    files = {f"{label if variant else CLASSES[label]}/{label}.jpeg": (made.jpeg(label), label)
             for label in (chosen[0], chosen[1], chosen[-1])}
    made.prepare("imagenet_v2/topimages" if variant else name, tmp_path,
                 {url: made.tar(only(files, f"{folder}/"), mode)})
    source = DATASETS.get(name)(data_dir=str(tmp_path), **variant)
    assert made.examples(source, "test") == labels(files)


@pytest.mark.daily(1)
@pytest.mark.parametrize("packed", ["imagenet-c/", "", "weather/", "tar"])
def test_imagenet_c_is_read_by_corruption_and_severity(packed, tmp_path, monkeypatch):
    made.sizes(monkeypatch, **dict.fromkeys(("validation", "fog-1", "fog-3"), len(VAL)))
    files = {f"fog/{severity}/{TRUTH[name]}/{name}": made.jpeg(10 * number + severity, 224)
             for severity in (1, 3) for number, name in enumerate(TRUTH)}
    files["frost/3/n01751748/ILSVRC2012_val_00000001.JPEG"] = made.jpeg(77, 224)
    if packed == "tar":
        made.write(tmp_path, {"weather.tar": made.tar({f"./{k}": v for k, v in files.items()})})
    else:
        made.write(tmp_path, {packed + name: data for name, data in files.items()})
    for severity in (1, 3):
        source = DATASETS.get("imagenet_c")(data_dir=str(tmp_path), corruption="fog",
                                            severity=severity)
        assert made.examples(source, "validation") == {
            made.pixels(data): CLASSES.index(name.split("/")[2])
            for name, data in files.items() if name.startswith(f"fog/{severity}/")}
        assert [path[-len("ILSVRC2012_val_00000001.JPEG"):]
                for path in made.paths(source, "validation")] == sorted(TRUTH)
        of_all = DATASETS.get("imagenet_c")(data_dir=str(tmp_path))
        assert made.examples(of_all, f"fog-{severity}") == made.examples(source, "validation")


def test_imagenet_c_knows_its_19_corruptions():
    from tensorflow_datasets.datasets.imagenet2012_corrupted import (
        imagenet2012_corrupted_dataset_builder as theirs,
    )

    from imgcls_jax.datasets.imagenet_c import ARCHIVES, GROUP

    assert set(GROUP) == {*theirs.BENCHMARK_CORRUPTIONS, *theirs.EXTRA_CORRUPTIONS}
    assert set(ARCHIVES["extra"]) == set(theirs.EXTRA_CORRUPTIONS)
    assert len(DATASETS.get("imagenet_c")().sizes) == 19 * 5
    for wrong in ({"corruption": "fogg", "severity": 1}, {"corruption": "fog", "severity": 6},
                  {"corruption": "fog"}, {"severity": 1}):
        with pytest.raises(ConfigError) as error:
            DATASETS.get("imagenet_c")(**wrong)
        assert error.value.fix


@pytest.mark.daily(1)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_real_labels_are_many_and_images_without_any_are_left_out(layout, tmp_path, monkeypatch):
    made.sizes(monkeypatch, validation=3)
    lay_out(tmp_path, layout)
    (tmp_path / "real.json").write_text(json.dumps([[65], [], [970, 795], [230, 231, 0]]))
    source = DATASETS.get("imagenet_real")(data_dir=str(tmp_path))
    assert source.kind == "multilabel"
    read = made.batch(source, "validation")
    assert read["label"].shape == (3, 1000) and read["label"].dtype == np.float32
    assert [np.flatnonzero(row).tolist() for row in read["label"]] == [[65], [795, 970],
                                                                       [0, 230, 231]]
    assert [image.tobytes() for image in read["image"]] == [
        made.pixels(VAL[f"ILSVRC2012_val_0000000{number}.JPEG"]) for number in (1, 3, 4)]


@pytest.mark.parametrize("text", ["[[65]", "[[1000],[],[],[]]", "[[0]]", "{}"])
def test_damaged_real_labels_are_refused(text, tmp_path):
    lay_out(tmp_path, "flat")
    (tmp_path / "real.json").write_text(text)
    with pytest.raises(DataError) as error:
        datasets.split(DATASETS.get("imagenet_real")(data_dir=str(tmp_path)), "validation")
    assert error.value.where.endswith("real.json") and error.value.fix


# ---- ImageNet-21k -------------------------------------------------------------------------------

WIDE = {f"n0{code}/n0{code}_{i}.JPEG": (made.jpeg(10 * label + i), label)
        for label, code in enumerate(("0004475", "0120010", "1440764")) for i in (1, 2)}


@pytest.mark.daily(2)
@pytest.mark.parametrize("packed", ["processed", "one tar", "class tars", "folders"])
def test_imagenet21k_as_folders_class_tars_or_one_tar(packed, tmp_path, monkeypatch):
    release = "winter21_processed" if packed == "processed" else "winter21"
    monkeypatch.setitem(imagenet21k.PUBLISHED, release, (3, {"train": 6, "validation": 6}))
    if packed == "processed":
        made.write(tmp_path, only(WIDE, "imagenet21k_train/"))
    elif packed == "folders":
        made.write(tmp_path, only(WIDE, "winter21_whole/"))
    elif packed == "class tars":
        made.write(tmp_path / "winter21_whole", class_tars(WIDE))
    else:
        made.write(tmp_path, {"winter21_whole.tar": made.tar(
            {f"winter21_whole/{name}": data for name, data in class_tars(WIDE).items()})})
    source = DATASETS.get("imagenet21k")(data_dir=str(tmp_path), release=release)
    assert made.examples(source, "train") == labels(WIDE)
    assert len(source.classes) == 3
    if packed != "one tar":
        assert source.classes == ("n00004475", "n00120010", "n01440764")
    # From the index that was kept, as another process would have it.
    again = DATASETS.get("imagenet21k")(data_dir=str(tmp_path), release=release)
    assert made.paths(again, "train") == made.paths(source, "train")


def test_a_class_tar_that_is_replaced_while_it_is_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(imagenet21k.PUBLISHED, "winter21", (3, {"train": 6, "validation": 6}))
    made.write(tmp_path / "winter21_whole", class_tars(WIDE))
    path = tmp_path / "winter21_whole" / "n00004475.tar"

    def opened():
        split = datasets.split(DATASETS.get("imagenet21k")(data_dir=str(tmp_path),
                                                           release="winter21"), "train")
        return split, [split.version(i) for i in range(split.size)]

    split, before = opened()
    (tmp_path / "new").write_bytes(path.read_bytes())
    (tmp_path / "new").rename(path)
    assert [split.version(i) for i in range(split.size)] == before
    assert sum(one != other for one, other in zip(before, opened()[1], strict=True)) == 2
    with pytest.raises(Exception, match="the archive was changed while it was being read"):
        for i in range(split.size):
            split.read(i)


def test_imagenet21k_of_another_release_is_refused(tmp_path):
    made.write(tmp_path, only(WIDE, "winter21_whole/"))
    source = DATASETS.get("imagenet21k")(data_dir=str(tmp_path), release="winter21")
    with pytest.raises(DataError, match="19,167 classes were published, but 3 were found") as error:
        datasets.split(source, "train")
    assert "release" in error.value.fix


def test_the_classes_are_those_of_tfds():
    builder = tensorflow_datasets.builder("imagenet2012")
    assert list(CLASSES) == builder.info.features["label"].names == sorted(CLASSES)
