"""Random layouts of folders, against a description of what should be read that is made apart."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgcls_jax import datasets
from imgcls_jax.datasets import DATASETS

SPLITS = {"train": ["train", "Train", "TRAIN", "training", "Training"],
          "val": ["val", "VAL", "valid", "validation", "Validation", "dev"],
          "test": ["test", "Test", "testing", "TESTING"]}
NAMES = ["ant", "Bee", "big cat", "café", "naïve ñandú", "花", "n01440764", "0", "a.b", "-x"]
CLUTTER = ["Thumbs.db", ".DS_Store", "desktop.ini", ".hidden/0.png", "@eaDir/0.png",
           "__MACOSX/0.png", "#recycle/0.png", "lost+found/0.png"]
PNG = {}


def png(number: int) -> bytes:
    import io

    if number not in PNG:
        out = io.BytesIO()
        Image.new("RGB", (2, 2), (number % 256, number // 256, 7)).save(out, "PNG")
        PNG[number] = out.getvalue()
    return PNG[number]


class Layout:
    """Writes a random layout; `expected`: split -> {(class, content of the image)}."""

    def __init__(self, root: Path, rng: np.random.Generator):
        self.root, self.rng, self.count = root, rng, 0
        self.expected: dict[str, set] = {}
        self.apart = root.parent / f"{root.name}-apart"  # what links lead to
        classes = [str(name) for name in rng.choice(NAMES, rng.integers(2, 5), replace=False)]
        top = self._outer(root)
        self.drawn = rng.random() < 0.4
        if self.drawn:
            if rng.random() < 0.3:  # one class may be called like a split
                classes.append(str(rng.choice(["train", "Test", "valid"])))
            self._classes(top, "all", classes)
        else:
            splits = ["train", *(name for name in ("val", "test") if rng.random() < 0.7)]
            for split in splits:
                own = classes if split == "train" or rng.random() < 0.5 else classes[:1]
                self._classes(top / str(rng.choice(SPLITS[split])), split, own)
        self._clutter(top)
        self.classes = sorted(classes, key=lambda name: name.encode())

    def _outer(self, root: Path) -> Path:
        """Folders around the layout, each with nothing but a text beside the next."""
        top = root
        for _ in range(int(self.rng.choice([0, 0, 1, 2]))):
            top.mkdir(parents=True, exist_ok=True)
            if self.rng.random() < 0.5:
                (top / "README.md").write_text("of the dataset")
            top = top / str(self.rng.choice(["images", "data", "Dataset v1"]))
        top.mkdir(parents=True, exist_ok=True)
        return top

    def _classes(self, place: Path, split: str, classes: list[str]):
        place.mkdir(exist_ok=True)
        for name in classes:
            form = str(self.rng.choice(["NFC", "NFD"]))  # as Linux or macOS wrote the folder
            folder = place / unicodedata.normalize(form, name)
            if self.rng.random() < 0.2:
                there = self.apart / f"{split}-{len(self.expected)}-{self.count}"
                there.mkdir(parents=True)
                folder.symlink_to(there, target_is_directory=True)
            folder.mkdir(exist_ok=True)
            # A folder of such a name that has folders in it would be a split.
            deep = ["", "", "2020", "a/b"] if name in NAMES else [""]
            least = 2 if split == "all" and name == classes[0] else 1  # one of them will be `val`
            for _ in range(self.rng.integers(least, 5)):
                self._image(folder / str(self.rng.choice(deep)), split, name)
            if self.rng.random() < 0.2 and deep[1:]:
                (folder / "loop").symlink_to(place, target_is_directory=True)
            self._clutter(folder)

    def _image(self, folder: Path, split: str, name: str):
        self.count += 1
        ending = str(self.rng.choice([".png", ".PNG", ".jpg", ".JPEG", "", ".image"]))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.count}{ending}").write_bytes(png(self.count))
        self.expected.setdefault(split, set()).add((name, png(self.count)))

    def _clutter(self, folder: Path):
        for name in CLUTTER:
            if self.rng.random() < 0.15:
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(png(65000))


def read(source, split: str) -> list[tuple[str, bytes]]:
    """By its labels and paths, in the order in which it is read."""
    opened = datasets.split(source, split)
    return [(source.classes[label], Path(os.fsencode(opened.where(index)).decode()).read_bytes())
            for index, label in enumerate(opened.labels())]


def check(seed: int, tmp_path: Path):
    layout = Layout(tmp_path / "dataset", np.random.default_rng(seed))
    source = DATASETS.get("folder")(dir=str(tmp_path / "dataset"), val_fraction=0.3)
    assert source.classes == tuple(layout.classes)
    found = {split: read(source, split) for split in source.sizes}
    every = [row for rows in found.values() for row in rows]
    assert len(every) == len(set(every)) == layout.count  # each once, in one split
    if layout.drawn:
        assert set(every) == layout.expected["all"] and set(found) == {"train", "val"}
    else:
        assert {split: set(rows) for split, rows in found.items()} == layout.expected


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_random_layouts_are_read_as_they_are_described(tmp_path):
    for seed in range(60):
        check(seed, tmp_path / str(seed))


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_two_thousand_random_layouts_are_read_as_they_are_described(tmp_path):
    for seed in range(60, 2060):
        check(seed, tmp_path / str(seed))
