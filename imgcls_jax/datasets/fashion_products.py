"""Photographs of products with tags, as in Kaggle's "Fashion Product Images": multilabel."""

import csv
import os
import warnings
import zlib
from pathlib import Path

import numpy as np

from imgcls_jax.datasets import DATASETS, _files
from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.types import Lookup, Source


@DATASETS.register()
def fashion_products(*, data_dir: str, columns: tuple[str, ...] = (
        "gender", "masterCategory", "subCategory", "articleType", "baseColour", "season", "usage"),
        at_least: int = 20, val_fraction: float = 0.1, channels: int = 3) -> Source:
    """Splits `train` and `val`: f32[K], a class for each tag "COLUMN: VALUE".

    columns: those of styles.csv whose values are tags; a tag with fewer than `at_least` products is
    left out. val_fraction of the products are `val`, by a hash of their id. data_dir: a folder with
    styles.csv and images/ID.jpg. Products without a photograph (a handful in the published dataset)
    are left out with a warning.
    """
    if not 0 <= val_fraction < 1:
        raise ConfigError(f"val_fraction={val_fraction} is out of range",
                          where="config.data.val_fraction",
                          fix="use a share of at least 0 and below 1, such as 0.1")
    root = Path(data_dir).expanduser()
    table = _files.place(root, "styles.csv")
    files = _files.find(root, "images")
    photographs = _files.numbers(files, 1)
    listed = _rows(table, columns)
    rows = [row for row in listed if os.fsencode(f"{row['id']}.jpg") in photographs]
    if len(rows) < len(listed):
        warnings.warn(f"{len(listed) - len(rows)} of {len(listed):,} products have no photograph "
                      f"and are left out ({table})", stacklevel=2)
    tags = [{f"{column}: {row[column]}" for column in columns if row[column]} for row in rows]
    names, counts = np.unique([tag for found in tags for tag in sorted(found)], return_counts=True)
    classes = tuple(map(str, names[counts >= at_least]))
    if not classes:
        raise DataError(f"no tag has at least {at_least} products", where=str(table),
                        fix="lower config.data.at_least")
    number_of = {name: number for number, name in enumerate(classes)}
    labels = np.zeros((len(rows), len(classes)), bool)
    for row, found in zip(labels, tags, strict=True):
        row[[number_of[tag] for tag in found if tag in number_of]] = True
    chosen = np.array([photographs[os.fsencode(f"{row['id']}.jpg")] for row in rows], np.int64)
    held_out = np.array([zlib.crc32(row["id"].encode()) < val_fraction * 2**32 for row in rows])
    members = {"train": ~held_out, "val": held_out}

    def open_split(split: str) -> Lookup:
        return _files.lookup(files, chosen[members[split]], labels[members[split]])

    return Source(name="fashion_products", classes=classes, kind="multilabel", channels=channels,
                  sizes={split: int(which.sum()) for split, which in members.items()},
                  open=open_split)


def _rows(table: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows by column. The last column may hold unquoted commas, as in the published file."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        missing = {"id", *columns} - set(header)
        if missing:
            raise DataError(f"there is no column {sorted(missing)[0]!r}", where=str(table),
                            fix=f"set config.data.columns to some of {header}")
        rows = [dict(zip(header, row, strict=False)) for row in reader if len(row) >= len(header)]
        total = reader.line_num - 1
    if len(rows) < total:
        warnings.warn(f"{total - len(rows)} rows with too few columns are left out ({table})",
                      stacklevel=2)
    return rows
