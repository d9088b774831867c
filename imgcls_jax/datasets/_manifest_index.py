"""The index of a manifest: each row's place in the file and its labels, made in one pass."""

import array
import collections
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imgcls_jax import untrusted
from imgcls_jax.datasets import _classes, _paths, _rows
from imgcls_jax.errors import DataError

ALIASES = {"validation": "val", "valid": "val"}
DELIMITERS = ",;|"  # what several labels in one field are often joined by
MARKS = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}  # in a column of a class
NAMES = "set config.data.numbers=False"
FLUSH = 1 << 16  # rows held before they are written


def has_columns(rules: dict[str, Any], columns: list[str]) -> bool:
    """Whether a table has the column of paths and those of labels."""
    labels = rules["label_columns"] or [rules["label_column"]]
    return rules["path_column"] in columns and (
        set(labels) <= set(columns) if any(labels) else bool({"label", "labels"} & set(columns)))


def make(rows: _rows.Rows, rules: dict[str, Any], folder: Path):
    """Writes to a folder: header.json (classes, sizes, kind, path_column, separator, and what to
    warn of) and for each split SPLIT.places.npy u64[n], SPLIT.labels.npy i32[n] and, if multilabel,
    SPLIT.ends.npy u64[n]: where the labels of each row end in SPLIT.labels.npy, which then is
    i32[labels]."""
    drawn = not _has(rows, rules["split_column"], "split_column", rules["split_column"] == "split")
    columns = rules["label_columns"] or [_label_column(rows, rules)]
    multilabel = (rules["kind"] or ("multilabel" if rules["label_columns"] or columns == ["labels"]
                                    else "")) == "multilabel"
    _has(rows, rules["path_column"], "path_column")
    for column in columns:
        _has(rows, column, "label_columns" if rules["label_columns"] else "label_column")
    labels = _Labels(rows, rules, multilabel, columns[0])
    splits: dict[str, _Columns] = {}
    trained: set[int] = set()
    first: set[int] = set()  # paths in train although a hash puts them into val
    held: set[int] = set()  # paths in val
    for line, place, row in rows:
        path = row.get(rules["path_column"])
        if not isinstance(path, str) or not path:
            raise rows.fault(line, f"the column {rules['path_column']!r} is empty")
        if "\0" in path or not _names_a_file(path):
            raise rows.fault(line, f"{path!r:.80} cannot be the name of a file")
        found = labels.read(line, row)
        image = hash(os.path.normpath(path))  # of 64 bits; not kept, as each process has another
        if not drawn:
            split = _split(rows, line, row.get(rules["split_column"]), rules["splits"])
        elif (image in first
              or _paths.share(rules["seed"], os.fsencode(path)) >= rules["val_fraction"]):
            split = "train"
        else:
            split = "val" if trained.issuperset(found) or image in held else "train"
            (held if split == "val" else first).add(image)
        if split == "train":
            trained.update(found)
        if split not in splits:
            splits[split] = _Columns(folder, split, multilabel)
        splits[split].add(place, found, image)
    if not splits:
        raise DataError("the manifest has no rows", where=rows.path, fix="write one row per image")
    if "train" not in splits:
        raise DataError(f"no row has the split 'train'; found {sorted(splits)}", where=rows.path,
                        fix=f"write train into the column {rules['split_column']!r}")
    names, order = labels.finish(trained)
    for columns in splits.values():
        columns.finish(order)
    header = {"classes": names, "kind": "multilabel" if multilabel else "multiclass",
              "sizes": {split: columns.size for split, columns in splits.items()},
              "path_column": rules["path_column"], "separator": rows.separator,
              "untrained": [name for i, name in enumerate(names) if i not in trained]
              if rules["classes"] or rules["label_columns"] else [],
              "alike": [] if labels.numbers or rules["classes"] else _classes.alike(names),
              "joined": [] if multilabel or rules["classes"] else _joined(names)}
    header |= _repeated(rows, splits, folder, rules["path_column"])
    (folder / "header.json").write_text(json.dumps(header))


def _repeated(rows: _rows.Rows, splits: dict[str, "_Columns"], folder: Path, column: str) -> dict:
    """Of the paths in more than one row, those in two splits (`apart`), and those whose labels
    differ (`unequal`): how many, and the first."""
    keys = np.concatenate([np.frombuffer(columns.images, np.int64) for columns in splits.values()])
    keys.sort()
    twice = np.unique(keys[1:][keys[1:] == keys[:-1]])
    places: dict[int, int] = {}
    seen: dict[int, tuple[set, set]] = collections.defaultdict(lambda: (set(), set()))
    for split, columns in splits.items() if twice.size else ():
        read = {name: np.load(folder / f"{split}.{name}.npy", mmap_mode="r")
                for name in columns.parts}
        ends = read.get("ends", range(1, columns.size + 1))
        images = np.frombuffer(columns.images, np.int64)
        for i in np.flatnonzero(np.isin(images, twice)).tolist():
            key, begin = int(images[i]), int(ends[i - 1]) if i else 0
            places[key] = min(int(read["places"][i]), places.get(key, int(read["places"][i])))
            seen[key][0].add(split)
            seen[key][1].add(frozenset(read["labels"][begin:int(ends[i])].tolist()))
    result: dict[str, list] = {"apart": [], "unequal": []}
    with open(rows.path, "rb") as file:
        for number, found in enumerate(result.values()):
            differing = [places[key] for key, sets in seen.items() if len(sets[number]) > 1]
            if differing:
                found += [len(differing), rows.at(file.fileno(), min(differing))[column]]
    return result


def _names_a_file(path: str) -> bool:
    """Whether it has bytes: half a character, as JSON may have, has none."""
    try:
        return bool(os.fsencode(path))
    except UnicodeEncodeError:
        return False


def _has(rows: _rows.Rows, column: str, key: str, optional: bool = False, fix: str = "") -> bool:
    """Whether there is the column that config.data.key names; DataError unless it is optional."""
    if column in rows.columns:
        if rows.columns.count(column) > 1:
            raise DataError(f"there are {rows.columns.count(column)} columns {column!r}",
                            where=f"{rows.path}, line 1", fix="rename all but one of them")
        return True
    near = [name for name in rows.columns if name.strip().casefold() == column.casefold()]
    if optional and not near:
        return False
    if not rows.columns:
        raise DataError("the manifest is empty", where=f"{rows.path}, line 1",
                        fix="write the names of the columns, then one row per image")
    if near:
        fix = (f"write {near[0]!r} in config.data.{key}" if key == "label_columns" else
               f"set config.data.{key}={near[0]!r}")
    raise DataError(f"there is no column {column!r}; found {rows.columns[:12]}",
                    where=f"{rows.path}, line 1", fix=fix or f"name it in config.data.{key}")


def _label_column(rows: _rows.Rows, rules: dict[str, Any]) -> str:
    column = rules["label_column"] or ("labels" if "labels" in rows.columns and "label" not in
                                       rows.columns else "label")
    others = [name for name in rows.columns if name not in (rules["path_column"],
                                                            rules["split_column"])]
    several = next((name for name in others if name.strip().casefold() == "labels"), None)
    _has(rows, column, "label_column", fix=(
        f"set config.data.label_column={several!r} and config.data.kind='multilabel'"
        if several and not rules["label_column"] else "name it in config.data.label_column; a "
        f"column of 0 and 1 for each class is label_columns={tuple(others[:12])}"))
    return column


def _split(rows, line: int, name: Any, allowed: list[str]) -> str:
    name = name.strip() if isinstance(name, str) else name
    if isinstance(name, str) and name not in allowed:
        folded = name.casefold()
        name = next((one for one in allowed if one.casefold() == folded), ALIASES.get(folded, name))
    if name not in allowed:
        raise rows.fault(line, f"the split {name!r:.80} is unknown",
                         f"write one of {allowed}, or name it in config.data.splits")
    return name


def _joined(names: list[str]) -> list[str]:
    """Of names of classes those that look like several labels in one: "cat,dog" where there is
    "cat", too, or "cat,bird"."""
    for sign in DELIMITERS:
        parts = {name: {part.strip() for part in name.split(sign)} for name in names}
        times = collections.Counter(part for found in parts.values() for part in found)
        joined = [name for name in names if sign in name
                  and any(times[part] > 1 for part in parts[name])]
        if joined:
            return joined
    return []


class _Labels:
    """Labels in order of rows -> numbers; the order of names is known after the last row."""

    def __init__(self, rows: _rows.Rows, rules: dict[str, Any], multilabel: bool, column: str):
        self.rows, self.multilabel, self.column = rows, multilabel, column
        self.columns, self.delimiter = rules["label_columns"], rules["label_delimiter"]
        self.names = rules["classes"] or self.columns
        # None while all labels are integers and no classes are given: then `finish` decides.
        self.numbers = rules["numbers"]
        self.undecided = self.numbers is None and not self.names
        self.known = {name: number for number, name in enumerate(self.names)}
        self.first_line: dict[int, int] = {}

    def read(self, line: int, row: Mapping[str, Any]) -> list[int]:
        if self.columns:
            return self._marked(line, row)
        value = row.get(self.column)
        values = self._several(line, value) if self.multilabel else [value]
        return sorted({self._one(line, one) for one in values})

    def _marked(self, line: int, row: Mapping[str, Any]) -> list[int]:
        """The classes whose columns hold a 1."""
        found = []
        for number, column in enumerate(self.columns):
            mark = MARKS.get(str(row.get(column)).strip().lower())
            if mark is None:
                raise self.rows.fault(line, f"{row.get(column)!r} in the column {column!r} is "
                                            "neither 0 nor 1")
            if mark:
                found.append(number)
                self.first_line.setdefault(number, line)
        if not self.multilabel and len(found) != 1:
            raise self.rows.fault(line, f"{len(found)} of the label columns are 1, but the data is "
                                        "multiclass", "mark one class, or set config.data.kind="
                                                      "'multilabel'")
        return found

    def _several(self, line: int, value: Any) -> list:
        if not isinstance(value, str):
            values = value
        elif value.strip().startswith("["):
            try:
                values = untrusted.from_json(value)
            except ValueError as error:
                raise self.rows.fault(line, f"labels {value!r} are not a JSON list") from error
        else:
            values = value.strip().split(self.delimiter or "|") if value.strip() else []
            for text in map(str.strip, () if self.delimiter else values):
                sign = next((sign for sign in DELIMITERS if sign in text), None)
                if sign and _classes.composed(text) not in self.names:
                    raise self.rows.fault(
                        line, f"label {text!r} has a {sign!r}: it may be one label or several",
                        f"set config.data.label_delimiter={sign!r} for several labels, or '|' for "
                        "one")
        if not isinstance(values, list):
            raise self.rows.fault(line, f"labels {value!r} are not a list")
        return values

    def _one(self, line: int, value: Any) -> int:
        text = _classes.composed(value.strip()) if isinstance(value, str) else value
        if not isinstance(text, str | int | float) or text == "" or (
                isinstance(text, float) and not math.isfinite(text)):
            raise self.rows.fault(line, f"{value!r} is not a label")
        integer = _integer(text)
        if self.numbers is None and not (self.undecided and integer is not None):
            if self.undecided and self.known:  # integers came before
                self._no_integer(line, text)
            self.numbers = integer is not None and str(text) not in self.known
        number = self._number(line, text, integer) if self.numbers else self._name(line, str(text))
        self.first_line.setdefault(number, line)
        return number

    def _no_integer(self, line: int, text):
        raise self.rows.fault(line, f"label {text!r} is not an integer, as those before it are",
                              f"fix this line, or {NAMES} if labels are names")

    def _number(self, line: int, text, integer: int | None) -> int:
        if integer is None:
            self._no_integer(line, text)
        last = len(self.names) - 1 if self.names else 2**24
        if not 0 <= integer <= last:
            raise self.rows.fault(line, f"label {integer} is out of range: labels must be 0 to "
                                        f"{last}", f"fix this line, or {NAMES} if labels are names")
        return integer

    def _name(self, line: int, text: str) -> int:
        if text not in self.known:
            if self.names:
                raise self.rows.fault(line, f"label {text!r} is not one of the {len(self.names)} "
                                            "classes", "correct it, or add it to the classes")
            self.known[text] = len(self.known)
        return self.known[text]

    def finish(self, trained: set[int]) -> tuple[list[str], np.ndarray | None]:
        """(names of the classes, number as given so far -> number of the class)."""
        place = {self.known[name]: name for name in self.known} if not self.numbers else {}
        if self.names:
            names, order = self.names, None
        elif self.numbers:
            names, order = range(max(self.first_line) + 1), None  # up to 2**24: named at the end
        else:
            counted = self.numbers is None and self._are_class_numbers()
            names = sorted(self.known, key=int) if counted else sorted(self.known)
            rank = {name: number for number, name in enumerate(names)}
            order = np.array([rank[name] for name in self.known], np.int32)
        for number, line in sorted(self.first_line.items()):
            if number not in trained:
                raise self.rows.fault(line, f"label {place.get(number, number)!r} is in another "
                                            "split but not in train",
                                      "add it to train, or remove it")
        if not self.names and self.numbers and len(trained) < len(names):
            self._missing(next(number for number in range(len(names)) if number not in trained),
                          len(names) - 1, self.first_line[len(names) - 1])
        return list(map(str, names)), order

    def _are_class_numbers(self) -> bool:
        """Whether labels that all are integers are 0 to K - 1, rather than ids: 01, or none is 0.
        DataError where they have a gap after 0, or one is negative."""
        if any(text != str(int(text)) for text in self.known) or "0" not in self.known:
            return False
        least, largest = min(map(int, self.known)), max(map(int, self.known))
        if least < 0:
            raise self.rows.fault(self.first_line[self.known[str(least)]], f"label {least} is out "
                                  "of range", f"fix this line, or {NAMES} if labels are names")
        if largest >= len(self.known):
            self._missing(next(number for number in range(largest)
                               if str(number) not in self.known), largest,
                          self.first_line[self.known[str(largest)]])
        return True

    def _missing(self, number: int, largest: int, line: int):
        raise self.rows.fault(line, f"the largest label is {largest}, but no row of train has "
                                    f"{number}", "correct this label, name all classes in "
                                    f"config.data.classes, or {NAMES} if labels are names")


def _integer(value: str | int | float) -> int | None:
    if isinstance(value, bool | float):
        return None
    if isinstance(value, int):
        return value
    digits = value.removeprefix("-")
    return int(value) if digits.isascii() and digits.isdigit() and len(digits) < 40 else None


class _Columns:
    """The columns of a split, written row by row."""

    def __init__(self, folder: Path, split: str, multilabel: bool):
        self.size = self.labelled = 0
        self.images = array.array("q")  # hashes of paths; they are not written
        self.parts = {"places": ("Q", np.uint64), "labels": ("i", np.int32)}
        if multilabel:
            self.parts["ends"] = ("Q", np.uint64)
        self.files = {name: open(folder / f"{split}.{name}.npy", "w+b") for name in self.parts}
        for file in self.files.values():
            file.write(bytes(128))  # the header, when the length is known
        self._empty()

    def _empty(self):
        self.held = {name: array.array(code) for name, (code, _) in self.parts.items()}

    def add(self, place: int, labels: list[int], image: int):
        self.size, self.labelled = self.size + 1, self.labelled + len(labels)
        self.images.append(image)
        self.held["places"].append(place)
        self.held["labels"].extend(labels)
        if "ends" in self.held:
            self.held["ends"].append(self.labelled)
        if not self.size % FLUSH:
            self._flush()

    def _flush(self):
        for name, values in self.held.items():
            self.files[name].write(values.tobytes())
        self._empty()

    def finish(self, order: np.ndarray | None):
        """order: i32[classes], what to write for each label."""
        self._flush()
        for name, (_, dtype) in self.parts.items():
            count = self.labelled if name == "labels" else self.size
            with self.files[name] as file:
                file.seek(0)
                write_header(file, np.dtype(dtype), count)
                path = file.name
            if name == "labels" and order is not None and count:
                labels = np.load(path, mmap_mode="r+")
                for first in range(0, count, 1 << 20):
                    labels[first:first + (1 << 20)] = order[labels[first:first + (1 << 20)]]
                labels.flush()
            assert os.path.getsize(path) == 128 + count * np.dtype(dtype).itemsize


def write_header(file, dtype: np.dtype, count: int):
    """The header of a .npy file with one axis; it is 128 bytes long."""
    np.lib.format.write_array_header_1_0(
        file, {"descr": dtype.str, "fortran_order": False, "shape": (count,)})
