"""iNaturalist competition datasets (arXiv 1707.06642): species, long-tailed until 2021."""

import functools
import importlib.util
import json
import os
from pathlib import Path

import numpy as np

from imgcls_jax.datasets import DATASETS, _files, _paths, _published
from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.types import Lookup, Source

# By year: classes, and images per split.
PUBLISHED = {2017: (5_089, {"train": 579_184, "validation": 95_986}),
             2018: (8_142, {"train": 437_513, "validation": 24_426}),
             2019: (1_010, {"train": 265_213, "validation": 3_030}),
             2021: (10_000, {"train": 2_686_843, "mini": 500_000, "validation": 100_000})}
# In the files of TFDS: the names of the classes, in the order of its labels.
TFDS = {2017: ("i_naturalist2017", "inaturalist_labels.txt"),
        2018: ("i_naturalist2018", "i_naturalist2018/inaturalist2018_labels.txt")}


@DATASETS.register()
def inaturalist(*, year: int, data_dir: str = "", channels: int = 3) -> Source:
    """Splits `train` and `validation`; 2021 also has `mini`, 50 training images per class.

    data_dir: the annotations and, next to them, the unpacked images, named as the annotations list
    them (2017 to 2019: for example train2018.json, val2018.json and train_val2018; 2021:
    train.json, train_mini.json, val.json and train, train_mini, val); 2017 and 2018 also as TFDS
    has prepared them. Classes are in the order of the category ids; their names come with the data,
    without it they may be numbers. What is read from the JSON is kept: the first time takes a
    minute and some GB of memory for 2021.
    """
    if year not in PUBLISHED:
        raise ConfigError(f"year={year} is unknown",
                          where="config.data.year", fix=f"use {[*PUBLISHED]}")
    count, sizes = PUBLISHED[year]
    tfds, _ = TFDS.get(year, ("", ""))
    listed = {split: _json_name(year, split) for split in sizes}
    classes = _classes(year, data_dir, tfds)
    if len(classes) != count:
        raise DataError(f"iNaturalist {year} was published with {count:,} classes; the annotations "
                        f"have {len(classes):,}", where=data_dir, fix="copy the JSON files again")
    return _published.source(
        "inaturalist", classes=classes, sizes=sizes, data_dir=data_dir, tfds=tfds,
        channels=channels, files=lambda root, split: _open(root, listed[split], count),
        layout=f"{', '.join(listed.values())} and the images that they name")


def _json_name(year: int, split: str) -> str:
    name = {"mini": "train_mini", "validation": "val"}.get(split, split)
    return f"{name}.json" if year == 2021 else f"{name}{year}.json"


def _classes(year: int, data_dir: str, tfds: str) -> tuple[str, ...]:
    root = Path(data_dir).expanduser()
    prepared = tfds and _published.is_prepared(tfds, data_dir)
    if data_dir and not prepared:
        separate = root / "categories.json"  # the lists of 2018 and 2019 hold numbers for names
        if separate.is_file():
            return _names(_load(separate))
        validation = root / _json_name(year, "validation")
        if validation.is_file():
            return tuple(json.loads((_learn(validation) / "classes.json").read_text()))
    package = importlib.util.find_spec("tensorflow_datasets")
    if tfds and package:
        listed = Path(package.submodule_search_locations[0], "image_classification", TFDS[year][1])
        return tuple(listed.read_text(encoding="utf-8").splitlines())
    return tuple(map(str, range(PUBLISHED[year][0])))


def _names(categories: list[dict]) -> tuple[str, ...]:
    return tuple(category["name"] for category in sorted(categories, key=lambda c: c["id"]))


def _open(root: Path, name: str, count: int) -> Lookup:
    learned = _learn(_files.place(root, name))
    names, labels = np.load(learned / "names.npy"), np.load(learned / "labels.npy")
    if len(json.loads((learned / "classes.json").read_text())) != count:
        raise DataError(f"the categories are not the {count:,} that were published",
                        where=str(root / name), fix="copy the JSON files again")
    first = root / os.fsdecode(bytes(names[0])) if len(names) else root
    if not first.exists():
        raise DataError(f"{os.fsdecode(bytes(names[0]))}, the first image of {name}, is missing",
                        where=str(root), fix="unpack the images next to the JSON files")
    return _files.lookup(_Listed(os.fsencode(root), names), np.arange(len(names)), labels)


class _Listed(_files.Folder):
    """Files of a folder whose names are known, so that it need not be walked."""

    def __init__(self, path: bytes, names: np.ndarray):
        self.path, self.names = path, names


def _learn(file: Path) -> Path:
    """The folder with names.npy, labels.npy and classes.json, made from an annotation file once."""
    return _paths.learn(_paths.learned([str(file)], {"inaturalist": 1}),
                        functools.partial(_read, file))


def _read(file: Path, folder: Path):
    data = _load(file)
    try:
        category = {entry["id"]: label for label, entry in
                    enumerate(sorted(data["categories"], key=lambda entry: entry["id"]))}
        label = {entry["image_id"]: category[entry["category_id"]]
                 for entry in data["annotations"]}
        names = np.array([os.fsencode(image["file_name"]) for image in data["images"]])
        labels = np.array([label[image["id"]] for image in data["images"]], np.int32)
        classes = _names(data["categories"])
    except (KeyError, TypeError) as error:
        raise DataError(f"they are not COCO annotations: {type(error).__name__}: {error}",
                        where=str(file), fix="copy the file again") from error
    np.save(folder / "names.npy", names)
    np.save(folder / "labels.npy", labels)
    (folder / "classes.json").write_text(json.dumps(classes))


def _load(file: Path):
    try:
        return json.loads(file.read_bytes())
    except (ValueError, OSError) as error:
        raise DataError(f"the file is not JSON: {error}", where=str(file),
                        fix="copy the file again") from error
