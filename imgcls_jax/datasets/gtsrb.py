"""German Traffic Sign Recognition Benchmark: 43 signs, 15 to 250 pixels (Stallkamp et al. 2012)."""

import csv
import io
from pathlib import Path

import numpy as np

from imgcls_jax.datasets import DATASETS, _files, _published
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup, Source

TRAIN = ("Final_Training/Images", "GTSRB_Final_Training_Images.zip")
TEST = ("Final_Test/Images", "GTSRB_Final_Test_Images.zip")
TRUTH = ("GT-final_test.csv", "Final_Test/Images/GT-final_test.csv", "GTSRB_Final_Test_GT.zip")


@DATASETS.register()
def gtsrb(*, data_dir: str = "", channels: int = 3) -> Source:
    """Splits `train` and `test`.

    In `train` the 30 frames of a track, one sign coming nearer, are kept together: `train[:80%]`
    and `train[80%:]` share at most one track. A random split would train and validate on the same
    sign. data_dir: a folder with Final_Training, Final_Test and GT-final_test.csv, or with GTSRB
    that holds these, or the three zip files.
    """
    return _published.source(
        "gtsrb", classes=_published.names("gtsrb"), sizes={"train": 39_209, "test": 12_630},
        data_dir=data_dir, files=_open, home="GTSRB", channels=channels,
        layout="Final_Training/Images/NNNNN/*.ppm, Final_Test/Images/*.ppm and GT-final_test.csv, "
               "or their zip files")


def _open(root: Path, split: str) -> Lookup:
    return _train(_files.find(root, *TRAIN)) if split == "train" else _test(root)


def _train(files: _files.Files) -> Lookup:
    chosen = np.array([number for number, name in enumerate(files.names)
                       if name.lower().endswith(b".ppm")], np.int64)
    parts = [files.names[number].split(b"/")[-2:] for number in chosen]
    try:  # NNNNN/TRACK_FRAME.ppm
        labels = np.array([int(folder) for folder, _ in parts], np.int32)
        tracks = np.array([int(folder) * 100_000 + int(name.split(b"_")[0])
                           for folder, name in parts])
    except ValueError as error:
        raise DataError(f"the images are not named NNNNN/TRACK_FRAME.ppm: {error}",
                        where=str(files.path)) from error
    order = np.argsort([files.names[number] for number in chosen], kind="stable")
    return _files.lookup(files, chosen[order], labels[order], groups=tracks[order])


def _test(root: Path) -> Lookup:
    place = _files.place(root, *TRUTH)
    data = place.read_bytes()
    if place.suffix == ".zip":
        archive = _files.opened(place)
        data = archive.read(_files.named(archive, "GT-final_test.csv"))
    try:
        rows = [(row["Filename"], int(row["ClassId"])) for row in csv.DictReader(
            io.StringIO(data.decode()), delimiter=";")]
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"the columns Filename or ClassId are missing: {error}", where=str(place),
                        fix="get GTSRB_Final_Test_GT.zip; the table inside the images' archive has "
                            "no classes") from error
    files = _files.find(root, *TEST)
    return _files.lookup(files, _files.pick(files, [name for name, _ in rows]),
                         np.array([label for _, label in rows], np.int32))
