"""A list of images: a CSV, TSV or JSON-lines file with path, label and split in each row."""

import functools
import json
import os
import warnings
import weakref
from pathlib import Path
from typing import Literal

import numpy as np

from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.datasets import DATASETS, _classes, _manifest_index, _paths, _rows
from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.types import Lookup, Source


@DATASETS.register()
def manifest(*, path: str, root: str = "", path_column: str = "path", label_column: str = "",
             label_columns: tuple[str, ...] = (), label_delimiter: str | None = None,
             split_column: str = "split", splits: tuple[str, ...] = ("train", "val", "test"),
             classes: int | str | tuple[str, ...] = (), numbers: bool | None = None,
             kind: Literal["multiclass", "multilabel"] | None = None, val_fraction: float = 0.2,
             seed: int = 0, channels: int = 3) -> Source:
    """path: a .csv, .tsv or .jsonl file; image paths are relative to `root`, else to its folder.
    The columns of a table are separated by comma, semicolon or tab.

    label_column: by default `label`, or `labels`, which means multilabel: names or numbers in a
    JSON list or separated by label_delimiter; labels are f32[K] then. label_delimiter: `|` by
    default, and then a label with a comma or semicolon is refused. label_columns: instead, a column
    of 0 and 1 for each class, named as the class; multilabel, unless kind="multiclass".

    numbers: whether labels are class numbers. By default they are if all are 0 to K - 1 without a
    gap, or if `classes` are given and the first label is a number; other integers, such as 1 to 3
    or 01, are names. classes: their names in order, a file with one name per line, or how many;
    else the sorted names, or all numbers up to the largest. splits: the names allowed in
    split_column, in any case ("validation" and "valid" are "val"). Without that column,
    val_fraction of the rows is `val`, by a hash of seed and path; the first row of each class is
    always in `train`, and rows of one path are in one split. Images in two splits or with two
    labels are reported.

    A row costs 12 bytes of mapped memory, in an index made when first opened and kept in
    $IMGCLS_DATA_CACHE; making it takes about 30 bytes of memory a row. Raises DataError with the
    line; a missing image is found only when it is read.
    """
    path = os.path.expanduser(path)
    if not 0 <= val_fraction < 1:
        raise ConfigError(f"val_fraction={val_fraction} is out of range",
                          where="config.data.val_fraction",
                          fix="use a share of at least 0 and below 1, such as 0.2")
    if not os.path.isfile(path):
        raise DataError("there is no such file", where=path, fix="set config.data.path to it")
    besides = {"label_column": label_column, "label_delimiter": label_delimiter,
               "classes": classes, "numbers": numbers is not None}
    for name in [name for name, given in besides.items() if label_columns and given]:
        raise ConfigError(f"label_columns and {name} exclude each other",
                          where=f"config.data.{name}", fix="give only one of them")
    if label_delimiter == "":
        raise ConfigError("the delimiter of labels is empty", where="config.data.label_delimiter",
                          fix="give the characters between two labels, such as ','")
    rules = dict(path_column=path_column, label_column=label_column,
                 label_columns=list(label_columns), label_delimiter=label_delimiter,
                 split_column=split_column, splits=list(splits),
                 classes=list(_classes.names(classes)), numbers=numbers, kind=kind,
                 val_fraction=val_fraction, seed=seed)
    state = _paths.state(path)
    folder = _paths.learned([], {"manifest": 3, "file": state, **rules})

    def make(unfinished: Path):
        rows = _rows.Rows(path, functools.partial(_manifest_index.has_columns, rules))
        try:
            _manifest_index.make(rows, rules, unfinished)
        finally:
            _same(path, state)

    _paths.learn(folder, make)
    header = json.loads((folder / "header.json").read_text())
    if header["joined"]:
        warnings.warn(f"{len(header['joined'])} classes look like several labels in one, such as "
                      f"{header['joined'][0]!r} ({path}); if they are, set config.data.kind="
                      "'multilabel' and config.data.label_delimiter", stacklevel=2)
    if header["alike"]:
        warnings.warn(f"some classes differ in case or spaces only, such as {header['alike'][0]} "
                      f"({path}); if they are one, write it in one way", stacklevel=2)
    if header["untrained"]:
        warnings.warn(f"{len(header['untrained'])} classes have no row in train: "
                      f"{header['untrained'][:8]} ({path})", stacklevel=2)
    for kind, what in (("apart", "are in two splits"), ("unequal", "have rows with other labels")):
        if header[kind]:
            count, first = header[kind]
            warnings.warn(f"{count:,} images {what}, such as {first!r} ({path})", stacklevel=2)
    root = os.path.expanduser(root) or os.path.dirname(os.path.abspath(path))

    def open_split(name: str) -> Lookup:
        return _lookup(path, state, folder, name, header, root)

    return Source(name="manifest", classes=tuple(header["classes"]), sizes=header["sizes"],
                  open=open_split, channels=channels, kind=header["kind"], mixed=True)


def _same(path: str, state: list, status: os.stat_result | None = None):
    """DataError unless the manifest is the one that the index is of."""
    if _paths.state(path, status) != state:
        raise _paths.changed(path, "manifest")


def _lookup(manifest: str, state: list, folder: Path, name: str, header: dict, root: str) -> Lookup:
    places = np.load(folder / f"{name}.places.npy", mmap_mode="r")
    labels = np.load(folder / f"{name}.labels.npy", mmap_mode="r")
    count, multilabel = len(header["classes"]), header["kind"] == "multilabel"
    ends = np.load(folder / f"{name}.ends.npy", mmap_mode="r") if multilabel else None
    file = os.open(manifest, os.O_RDONLY)
    status = os.fstat(file)
    _same(manifest, state, status)
    rows = _rows.Rows(manifest, separator=header["separator"])
    _same(manifest, state)

    def image(index) -> bytes:
        try:
            path = rows.at(file, int(places[index]))[header["path_column"]]
        finally:  # of a changed file there may be no row at the place
            _paths.unchanged(file, manifest, status, "manifest")
        return os.fsencode(path if "://" in path else os.path.join(root, path))

    def label(index):
        if not multilabel:
            return np.int32(labels[index])
        dense = np.zeros(count, np.float32)
        dense[labels[ends[index - 1] if index else 0:ends[index]]] = 1
        return dense

    def all_labels():
        if not multilabel:
            return labels
        dense = np.zeros((len(ends), count), np.float32)
        counts = np.diff(ends.astype(np.int64), prepend=0)
        dense[np.repeat(np.arange(len(ends)), counts), labels] = 1
        return dense

    def listed():
        rows_of_split = set(places.tolist())
        try:
            names = [os.fsencode(row[header["path_column"]]) for _, place, row in rows
                     if place in rows_of_split]
        finally:
            _same(manifest, state)
        if not multilabel:
            return names, labels
        numbers = np.split(labels, ends[:-1].astype(np.int64))
        # Sorted: in the index they are in the order in which the table has its classes.
        return names, [b"|".join(b"%d" % number for number in sorted(row)) for row in numbers]

    def read(index):
        tf = tensorflow()
        path, found = tf.numpy_function(
            lambda i: (_paths.readable(image(i)), label(i)), [index],
            (tf.string, tf.float32 if multilabel else tf.int32))
        found = tf.ensure_shape(found, (count,) if multilabel else ())
        return {"image": tf.io.read_file(tf.ensure_shape(path, ())), "label": found}

    split = Lookup(len(places), read, lambda index: _paths.say(image(index)), all_labels,
                   lambda index: _paths.version(image(index)), listed)
    weakref.finalize(image, os.close, file)
    return split
