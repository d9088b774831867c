"""Flowers, pets, food, cars and iNaturalist, from distributed files and by real TFDS builders."""

import io
import json
import zipfile

import numpy as np
import pytest
import scipy.io

from imgcls_jax import datasets
from imgcls_jax.datasets import DATASETS, inaturalist
from imgcls_jax.errors import ConfigError, DataError
from tests.datasets import made


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("IMGCLS_DATA_CACHE", str(tmp_path_factory.mktemp("cache")))


def matlab(**variables) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, variables)
    return file.getvalue()


# ---- Flowers-102: labels and image numbers count from 1 ------------------------------------------

FLOWERS = {"train": (3, 1), "validation": (6,), "test": (2, 4, 5)}  # numbers of the images
SPECIES = (77, 1, 102, 51, 2, 101)  # of images 1 to 6


def flowers():
    images = {f"jpg/image_{number:05d}.jpg": made.jpeg(number) for number in range(1, 7)}
    tables = {"imagelabels.mat": matlab(labels=np.array([SPECIES], np.uint8)),
              "setid.mat": matlab(**{key: np.array([FLOWERS[split]], np.uint16) for key, split in (
                  ("trnid", "train"), ("valid", "validation"), ("tstid", "test"))})}
    expected = {split: {made.pixels(made.jpeg(number)): SPECIES[number - 1] - 1
                        for number in numbers} for split, numbers in FLOWERS.items()}
    return images, tables, expected


def check(source, expected):
    for split, images in expected.items():
        assert made.examples(source, split) == images


@pytest.mark.daily(2)
@pytest.mark.parametrize("packed", ["", "tgz", "flowers-102/"])
def test_flowers_are_read_from_the_files_of_oxford(packed, tmp_path, monkeypatch):
    made.sizes(monkeypatch, train=2, validation=1, test=3)
    images, tables, expected = flowers()
    if packed == "tgz":
        made.write(tmp_path, {"102flowers.tgz": made.tar(images, "w:gz"), **tables})
    else:
        made.write(tmp_path, {packed + name: data for name, data in {**images, **tables}.items()})
    check(DATASETS.get("flowers102")(data_dir=str(tmp_path)), expected)


def test_flowers_prepared_by_the_real_tfds_builder(tmp_path, monkeypatch):
    made.sizes(monkeypatch, train=2, validation=1, test=3)
    images, tables, expected = flowers()
    url = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
    made.prepare("oxford_flowers102", tmp_path, {
        url + name: data for name, data in
        {"102flowers.tgz": made.tar(images, "w:gz"), **tables}.items()})
    theirs = DATASETS.get("tfds")(dataset="oxford_flowers102", data_dir=str(tmp_path))
    ours = DATASETS.get("flowers102")(data_dir=str(tmp_path))
    assert theirs.classes == ours.classes
    check(theirs, expected)
    check(ours, expected)


def test_a_flower_that_is_missing_is_named(tmp_path):
    images, tables, _ = flowers()
    del images["jpg/image_00004.jpg"]
    made.write(tmp_path, {**images, **tables})
    with pytest.raises(DataError, match=r"1 of 3 images .* image_00004.jpg") as error:
        datasets.split(DATASETS.get("flowers102")(data_dir=str(tmp_path)), "test")
    assert error.value.where.endswith("jpg") and "setid.mat" in error.value.fix


# ---- Pets, Food-101, Cars ------------------------------------------------------------------------

PETS = {"trainval.txt": ("Abyssinian_100 1 1 1", "yorkshire_terrier_9 37 2 25",
                         "american_bulldog_7 2 2 1"),
        "test.txt": ("Bengal_3 6 1 2", "Abyssinian_2 1 1 1")}


@pytest.mark.daily(2)
@pytest.mark.parametrize("packed", ["", "tar.gz", "oxford-iiit-pet/"])
def test_pets_are_read_by_their_lists(packed, tmp_path, monkeypatch):
    made.sizes(monkeypatch, train=3, test=2)
    lines = [line for listed in PETS.values() for line in listed]
    images = {f"images/{line.split()[0]}.jpg": made.jpeg(number)
              for number, line in enumerate(lines)}
    lists = {f"annotations/{name}": "".join(f"{line}\n" for line in listed).encode()
             for name, listed in PETS.items()}
    if packed == "tar.gz":
        made.write(tmp_path, {"images.tar.gz": made.tar(images, "w:gz"),
                              "annotations.tar.gz": made.tar(lists, "w:gz")})
    else:
        made.write(tmp_path, {packed + name: data for name, data in {**images, **lists}.items()})
    source = DATASETS.get("pets")(data_dir=str(tmp_path))
    for split, name in (("train", "trainval.txt"), ("test", "test.txt")):
        found = made.examples(source, split)
        breeds = {line.split()[0]: source.classes[found[made.pixels(images[
            f"images/{line.split()[0]}.jpg"])]] for line in PETS[name]}
        assert breeds == {picture: picture.rpartition("_")[0] for picture in breeds}
        assert len(found) == len(PETS[name])


@pytest.mark.daily(1)
@pytest.mark.parametrize("home", ["food-101/", ""])
def test_food_is_read_by_its_lists_and_its_own_order(home, tmp_path, monkeypatch):
    made.sizes(monkeypatch, train=3, validation=2)
    lists = {"train": ("cheese_plate/11", "cheesecake/12", "waffles/13"),
             "test": ("apple_pie/14", "cheesecake/15")}
    label = {"apple_pie": 0, "cheesecake": 16, "cheese_plate": 17, "waffles": 100}
    data = {name: made.jpeg(int(name.split("/")[1])) for names in lists.values() for name in names}
    made.write(tmp_path, {f"{home}images/{name}.jpg": image for name, image in data.items()})
    made.write(tmp_path, {f"{home}meta/{listed}.txt": "\n".join(names).encode()
                          for listed, names in lists.items()})
    source = DATASETS.get("food101")(data_dir=str(tmp_path))
    for split, listed in (("train", "train"), ("validation", "test")):
        assert made.examples(source, split) == {
            made.pixels(data[name]): label[name.split("/")[0]] for name in lists[listed]}


@pytest.mark.nightly
def test_food_prepared_by_the_real_tfds_builder(tmp_path, monkeypatch):
    made.sizes(monkeypatch, train=2, validation=1)
    lists = {"train": {"cheese_plate": ["cheese_plate/1"], "cheesecake": ["cheesecake/2"]},
             "test": {"cheesecake": ["cheesecake/3"]}}
    files = {f"food-101/images/{name}.jpg": made.jpeg(int(name[-1]))
             for name in ("cheese_plate/1", "cheesecake/2", "cheesecake/3")}
    files |= {f"food-101/meta/{split}.json": json.dumps(listed).encode()
              for split, listed in lists.items()}
    made.prepare("food101", tmp_path, {
        "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz": made.tar(files, "w:gz")})
    check(DATASETS.get("food101")(data_dir=str(tmp_path)), {
        "train": {made.pixels(made.jpeg(1)): 17, made.pixels(made.jpeg(2)): 16},
        "validation": {made.pixels(made.jpeg(3)): 16}})


CARS = {"train": (("00001.jpg", 14), ("00002.jpg", 1)),
        "test": (("00001.jpg", 196), ("00002.jpg", 2), ("00003.jpg", 1))}


def annotations(rows) -> bytes:
    box = [(name, np.uint8) for name in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")]
    table = np.array([(1, 1, 8, 8, label, name) for name, label in rows],
                     [*box, ("class", np.uint8), ("fname", object)])
    return matlab(annotations=table[None])


@pytest.mark.daily(2)
@pytest.mark.parametrize("home, place", [("", "devkit/"), ("stanford_cars/", ""), ("", ""),
                                         ("stanford_cars/", "devkit/")])
def test_cars_are_read_from_the_devkit(home, place, tmp_path, monkeypatch):
    made.sizes(monkeypatch, train=2, test=3)
    images = {f"cars_{split}/{name}": made.jpeg(1000 * len(split) + label)
              for split, rows in CARS.items() for name, label in rows}
    made.write(tmp_path / home, {
        **images, "devkit/cars_train_annos.mat": annotations(CARS["train"]),
        f"{place}cars_test_annos_withlabels.mat": annotations(CARS["test"])})
    source = DATASETS.get("cars")(data_dir=str(tmp_path))
    assert source.classes[0] == "AM General Hummer SUV 2000"  # class 1 of the devkit
    assert source.classes[195] == "smart fortwo Convertible 2012"
    check(source, {split: {made.pixels(images[f"cars_{split}/{name}"]): label - 1
                           for name, label in rows} for split, rows in CARS.items()})


def test_the_annotations_of_cars_without_classes_are_not_taken(tmp_path):
    made.write(tmp_path, {"devkit/cars_test_annos.mat": annotations(CARS["test"])})
    with pytest.raises(DataError, match="cars_test_annos_withlabels"):
        datasets.split(DATASETS.get("cars")(data_dir=str(tmp_path)), "test")


def test_names_and_order_of_the_classes_are_those_of_tfds():
    import tensorflow_datasets

    for ours, theirs in (("flowers102", "oxford_flowers102"), ("pets", "oxford_iiit_pet"),
                         ("food101", "food101"), ("cars", "cars196"),
                         ("fashion_mnist", "fashion_mnist")):
        names = tensorflow_datasets.builder(theirs).info.features["label"].names
        assert list(DATASETS.get(ours)().classes) == names


# ---- iNaturalist ---------------------------------------------------------------------------------

NAMES = ("Zebra finch", "Apus apus", "Mus musculus")  # of categories 0, 1 and 2: not sorted
FOLDER = {2017: "train_val_images/Aves/{}", 2018: "train_val2018/Aves/{}",
          2019: "train_val2019/Birds/{}", 2021: "{split}/0000{}_Animalia_Chordata"}


def nature(year):
    """({json name: bytes}, {image name: bytes}, {split: {pixels: label}})."""
    listed, images, expected = {}, {}, {}
    for place, split in enumerate(inaturalist.PUBLISHED[year][1]):
        name = {"mini": "train_mini", "validation": "val"}.get(split, split)
        rows = [(100 * place + i, (i + place) % 3) for i in range(4 - place)]
        data = {"images": [], "annotations": [], "categories": [
            {"id": k, "name": NAMES[k], "supercategory": "Aves"} for k in (2, 0, 1)]}
        expected[split] = {}
        for i, (number, label) in enumerate(rows):
            file = FOLDER[year].format(label, split=name) + f"/{number:05d}.jpg"
            images[file] = made.jpeg(number)
            data["images"].append({"id": number + 9, "file_name": file})
            data["annotations"].insert(-i, {"id": i, "image_id": number + 9,
                                            "category_id": label})
            expected[split][made.pixels(images[file])] = label
        listed[f"{name}.json" if year == 2021 else f"{name}{year}.json"] = json.dumps(data).encode()
    return listed, images, expected


@pytest.mark.daily(2)
@pytest.mark.parametrize("year", [2018, 2021, 2017, 2019])
def test_inaturalist_is_read_by_its_annotations(year, tmp_path, monkeypatch):
    """Labels are in the order of the category ids, and joined by the ids of the images."""
    listed, images, expected = nature(year)
    monkeypatch.setitem(inaturalist.PUBLISHED, year,
                        (3, {split: len(found) for split, found in expected.items()}))
    made.write(tmp_path, {**listed, **images})
    source = DATASETS.get("inaturalist")(year=year, data_dir=str(tmp_path))
    check(source, expected)
    kept = DATASETS.get("inaturalist")(year=year, data_dir=str(tmp_path))
    assert source.classes == kept.classes == NAMES
    for split in expected:
        assert made.paths(kept, split) == made.paths(source, split)
        np.testing.assert_array_equal(*(datasets.labels(one, split, "")
                                        for one in (kept, source)))


def test_the_species_of_2018_are_named_in_a_file_of_their_own(tmp_path, monkeypatch):
    listed, images, expected = nature(2018)
    monkeypatch.setitem(inaturalist.PUBLISHED, 2018, (3, {"train": 4, "validation": 3}))
    named = [{"id": k, "name": f"species {k}"} for k in (1, 2, 0)]
    made.write(tmp_path, {**listed, **images, "categories.json": json.dumps(named).encode()})
    source = DATASETS.get("inaturalist")(year=2018, data_dir=str(tmp_path))
    assert source.classes == ("species 0", "species 1", "species 2")
    check(source, expected)


@pytest.mark.nightly
def test_inaturalist_2017_prepared_by_the_real_tfds_builder(tmp_path, monkeypatch):
    known = DATASETS.get("inaturalist")(year=2017).classes
    assert len(known) == len(set(known)) == 5_089
    labels = {"train": (0, 5088, 17), "val": (3,)}
    images, lists = {}, {}
    for split, chosen in labels.items():
        data = {"images": [], "annotations": [],
                "categories": [{"id": i, "name": known[label], "supercategory": "Aves"}
                               for i, label in enumerate(chosen)]}
        for i, label in enumerate(chosen):
            file = f"train_val_images/Aves/{split}{label}.jpg"
            images[file] = made.jpeg(label)
            data["images"].append({"id": i, "file_name": file})
            data["annotations"].append({"id": i, "image_id": i, "category_id": i})
        lists[f"{split}2017.json"] = json.dumps(data)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in lists.items():
            archive.writestr(name, text)
    url = "http://www.vision.caltech.edu/~gvanhorn/datasets/inaturalist/fgvc4_competition/"
    made.prepare("i_naturalist2017", tmp_path, {
        f"{url}train_val_images.tar.gz": made.tar(images, "w:gz"),
        f"{url}train_val2017.zip": packed.getvalue(),
        f"{url}test2017.tar.gz": made.tar({"test2017/a.jpg": made.jpeg(1)}, "w:gz")})
    monkeypatch.setitem(inaturalist.PUBLISHED, 2017, (5_089, {"train": 3, "validation": 1}))
    expected = {split: {made.pixels(made.jpeg(label)): label for label in chosen} for split, chosen
                in (("train", labels["train"]), ("validation", labels["val"]))}
    check(DATASETS.get("tfds")(dataset="i_naturalist2017", data_dir=str(tmp_path)), expected)
    check(DATASETS.get("inaturalist")(year=2017, data_dir=str(tmp_path)), expected)


FAULTS = {
    "no annotations": (lambda root: (root / "train2018.json").unlink(), "train2018.json"),
    "no images": (lambda root: (root / "train_val2018").rename(root / "photos"), "the first image"),
    "cut annotations": (lambda root: (root / "train2018.json").write_bytes(
        (root / "train2018.json").read_bytes()[:-9]), "not JSON"),
    "of another kind": (lambda root: (root / "train2018.json").write_text('{"images": []}'),
                        "not COCO annotations")}


@pytest.mark.parametrize("fault", FAULTS)
def test_incomplete_inaturalist_is_refused_with_its_place(fault, tmp_path, monkeypatch):
    listed, images, _ = nature(2018)
    monkeypatch.setitem(inaturalist.PUBLISHED, 2018, (3, {"train": 4, "validation": 3}))
    made.write(tmp_path, {**listed, **images})
    spoil, what = FAULTS[fault]
    spoil(tmp_path)
    source = DATASETS.get("inaturalist")(year=2018, data_dir=str(tmp_path))
    with pytest.raises(DataError, match=what) as error:
        datasets.split(source, "train")
    assert str(tmp_path) in error.value.where and error.value.fix


def test_inaturalist_of_an_unknown_year_or_with_other_classes_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="2020"):
        DATASETS.get("inaturalist")(year=2020)
    listed, images, _ = nature(2021)
    made.write(tmp_path, {**listed, **images})
    with pytest.raises(DataError, match="10,000 classes; the annotations have 3"):
        DATASETS.get("inaturalist")(year=2021, data_dir=str(tmp_path))
