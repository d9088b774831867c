"""Labeled Faces in the Wild: 13,233 photographs of 5,749 people (Huang et al. 2007)."""

from pathlib import Path

import numpy as np

from imgcls_jax.datasets import DATASETS, _files, _published
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup, Source

PEOPLE = {"train": "peopleDevTrain.txt", "test": "peopleDevTest.txt"}
PAIRS = {"pairs": "pairs.txt", "pairs_dev_test": "pairsDevTest.txt"}
LAYOUT = ("lfw/NAME/NAME_NNNN.jpg (or lfw.tgz, lfw-funneled.tgz), peopleDevTrain.txt, "
          "peopleDevTest.txt, pairs.txt and pairsDevTest.txt")


@DATASETS.register()
def lfw(*, data_dir: str, channels: int = 3) -> Source:
    """The label is the person. Splits `train` and `test` have no person in common (View 1).

    `pairs` (View 2, 6,000 in 10 sets) and `pairs_dev_test` (1,000, all with people of `test`) are
    pairs of photographs: examples 2i and 2i + 1, of the same person if their labels are equal.
    data_dir: a folder with lfw/NAME/NAME_NNNN.jpg, or lfw.tgz, and the four lists.
    """
    root = Path(data_dir).expanduser()
    people = {split: list(_people(_files.place(root, name))) for split, name in PEOPLE.items()}
    classes = (*sorted(people["train"]), *sorted(people["test"]))
    return _published.source(
        "lfw", classes=classes, data_dir=data_dir, channels=channels, layout=LAYOUT,
        sizes={"train": 9_525, "test": 3_708, "pairs": 12_000, "pairs_dev_test": 2_000},
        files=lambda root, split: _open(root, split, classes))


def _open(root: Path, split: str, classes: tuple[str, ...]) -> Lookup:
    if split in PEOPLE:
        counts = _people(_files.place(root, PEOPLE[split]))
        wanted = [(name, number + 1) for name, count in counts.items() for number in range(count)]
    else:
        wanted = _pairs(_files.place(root, PAIRS[split]))
    number_of = {name: number for number, name in enumerate(classes)}
    unknown = [name for name, _ in wanted if name not in number_of]
    if unknown:
        raise DataError(f"{unknown[0]} is not in the lists of people", where=str(root),
                        fix="copy the lists again")
    files = _files.find(root, "lfw", "lfw-deepfunneled", "lfw_funneled", "lfw.tgz",
                        "lfw-deepfunneled.tgz", "lfw-funneled.tgz")
    paths = [f"{name}/{name}_{number:04d}.jpg" for name, number in wanted]
    labels = np.array([number_of[name] for name, _ in wanted], np.int32)
    return _files.lookup(files, _files.pick(files, paths), labels, shuffle=split in PEOPLE)


def _rows(file: Path, width: tuple[int, ...]) -> list[list[str]]:
    """Rows of a list after its first line, which holds counts."""
    rows = [line.split("\t") for line in file.read_text().splitlines()[1:] if line.strip()]
    for line, row in enumerate(rows, 2):
        if len(row) not in width or not all(cell.strip().isdigit() for cell in row[1:2]):
            raise DataError(f"the line is not a name and numbers: {row}",
                            where=f"{file}, line {line}", fix="copy the list again")
    return rows


def _people(file: Path) -> dict[str, int]:
    """Name -> number of photographs."""
    return {row[0]: int(row[1]) for row in _rows(file, (2,))}


def _pairs(file: Path) -> list[tuple[str, int]]:
    """(name, number) of the photographs, the two of a pair one after the other."""
    found = []
    for row in _rows(file, (3, 4)):  # NAME i j, or NAME i OTHER j
        other, number = (row[0], row[2]) if len(row) == 3 else (row[2], row[3])
        found += [(row[0], int(row[1])), (other, int(number))]
    return found
