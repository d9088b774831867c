"""NIH ChestX-ray14: 14 findings in 112,120 radiographs, multilabel (arXiv 1705.02315)."""

import csv
import io
from pathlib import Path

import numpy as np

from imgcls_jax.datasets import DATASETS, _files, _published
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup, Source

FINDINGS = ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule",
            "Pneumonia", "Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis",
            "Pleural_Thickening", "Hernia")
TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}


@DATASETS.register()
def chest_xray14(*, data_dir: str = "", channels: int = 3) -> Source:
    """Splits `train` (train_val_list.txt) and `test`: f32[14], all zeros if there is no finding.

    The images of a patient are kept together: `train[:90%]` and `train[90%:]` share at most one
    patient. A random split would train and validate on the same chests. data_dir: a folder with
    Data_Entry_2017.csv, the two lists, and the images as unpacked, in images or images_001 to
    images_012.
    """
    return _published.source(
        "chest_xray14", classes=FINDINGS, sizes={"train": 86_524, "test": 25_596},
        data_dir=data_dir, files=_open, kind="multilabel", channels=channels,
        layout="Data_Entry_2017.csv, train_val_list.txt, test_list.txt and the images, in images "
               "or images_001 to images_012")


def _open(root: Path, split: str) -> Lookup:
    wanted = _files.place(root, LISTS[split]).read_text().split()
    table = _files.place(root, *TABLES)
    rows = {row["Image Index"]: row for row in csv.DictReader(io.StringIO(table.read_text()))}
    labels, patients = np.zeros((len(wanted), len(FINDINGS)), bool), []
    for i, name in enumerate(wanted):
        try:
            row = rows[name]
            found = [label for label in row["Finding Labels"].split("|") if label != "No Finding"]
            labels[i, [FINDINGS.index(label) for label in found]] = True
            patients.append(int(row["Patient ID"]))
        except (KeyError, ValueError) as error:
            raise DataError(f"{name} has no findings or no patient: {error}", where=str(table),
                            fix="copy the table again") from error
    files = _files.opened(root)
    return _files.lookup(files, _files.pick(files, wanted), labels, groups=np.array(patients))
