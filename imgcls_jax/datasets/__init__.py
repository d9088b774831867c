"""Datasets: `(*, ...) -> types.Source`. TensorFlow is imported inside functions only.

A split is asked for by its name or as a part of one, as in TFDS: `train[:99%]`, `train[-1000:]`.
"""

import contextlib
import contextvars
import dataclasses
import functools
import re
import warnings
from collections.abc import Callable, Iterator

import numpy as np

from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.registry import Registry, near
from imgcls_jax.types import Lookup, Shards, Source

DATASETS = Registry("dataset", __name__)
_faults: contextvars.ContextVar[list | None] = contextvars.ContextVar("faults", default=None)


def fault(error: DataError):
    """What a dataset calls in place of `raise` if it can continue without the faulty thing."""
    found = _faults.get()
    if found is None:
        raise error
    found.append(error)


class LeftOut(DataError):
    """No fault, but something that is not read."""


def leave_out(files: list[LeftOut], summary: str):
    """What a dataset calls for files that it does not read; the summary is what training says."""
    found = _faults.get()
    if found is None:
        warnings.warn(summary, stacklevel=2)
    else:
        found += files


@contextlib.contextmanager
def collecting() -> Iterator[list[DataError]]:
    """Datasets that are built inside it list their faults, and leave the faulty things out."""
    found = []
    token = _faults.set(found)
    try:
        yield found
    finally:
        _faults.reset(token)


def size(source: Source, name: str, where: str = "") -> int:
    """The number of examples in a split or a part of one, without opening it. where: the key of the
    config that names it."""
    _, first, last = _bounds(source, name, where)
    return last - first


def split(source: Source, name: str) -> Lookup | Shards:
    """Opens a split or a part of one. Examples are counted from the beginning of the part.

    A part is a run of the split's own order; where `source.mixed`, the same run of `shuffled`,
    sorted. So parts that share no place share no example.
    """
    whole, first, last = _bounds(source, name)
    opened = source.open(whole)
    if (first, last) == (0, opened.size):
        return opened
    if isinstance(opened, Lookup) and source.mixed:
        return _chosen(opened, np.sort(shuffled(opened.size)[first:last]))
    if isinstance(opened, Lookup):
        return Lookup(last - first, lambda index: opened.read(index + first),
                      lambda index: opened.where(index + first),
                      opened.labels and (lambda: opened.labels()[first:last]),
                      opened.version and (lambda index: opened.version(index + first)),
                      opened.listed and (lambda: tuple(
                          column if column is None else column[first:last]
                          for column in opened.listed())))
    files, begin = [], 0
    for path, skipped, count in opened.files:
        low, high = max(first - begin, 0), min(last - begin, count)
        if low < high:
            files.append((path, skipped + low, high - low))
        begin += count
    return dataclasses.replace(opened, files=tuple(files))


def shuffled(count: int) -> np.ndarray:
    """i64[count]: one fixed order, so that a part such as train[:10%] holds all classes.

    From raw bits, which stay the same in every NumPy version; its permutations may change.
    """
    return np.argsort(np.random.Philox(key=0).random_raw(count), kind="stable")


def labels(source: Source, name: str, where: str) -> np.ndarray:
    """i32[N] or f32[N,K] of a split, without reading an image; where: the key that needs them."""
    opened = split(source, name)
    if isinstance(opened, Lookup) and opened.labels:
        return np.asarray(opened.labels())
    raise ConfigError(f"the labels of {source.name} are not known before its images are read",
                      where=where, fix="leave it out, or use a dataset with random access, such as "
                                       "folder, manifest or prepared")


def only(source: Source, classes: tuple[str, ...]) -> Source:
    """The examples of some classes, which are renumbered in the order given."""
    unknown = [name for name in classes if name not in source.classes]
    if unknown or len(set(classes)) < len(classes) or source.kind != "multiclass":
        raise ConfigError(f"{unknown[0]!r} is not a class of {source.name}" if unknown else
                          "config.data.only names a class twice, or the data is not multiclass",
                          where="config.data.only",
                          fix=near(unknown[0], source.classes) if unknown else "correct the list")
    number = np.full(len(source.classes), -1, np.int32)
    number[[source.classes.index(name) for name in classes]] = np.arange(len(classes))

    def members(name):
        return np.flatnonzero(number[labels(source, name, "config.data.only")] >= 0)

    members = functools.cache(members)
    return dataclasses.replace(
        source, classes=classes, files=None, subset=None,
        sizes={name: len(members(name)) for name in source.sizes},
        open=lambda name: _chosen(source.open(name), members(name), number))


def per_class(source: Source, name: str, count: int, generator: Callable) -> Source:
    """`count` examples of each class of a split, all of a smaller class; other splits stay.

    generator: label -> numpy generator that draws them. `name`: a whole split; ConfigError for a
    part of one, or for data with several labels per example.
    """
    whole, first, last = _bounds(source, name)
    if (first, last) != (0, source.sizes[whole]):
        raise ConfigError(f"per_class cannot draw from {name!r}", where="config.data.train",
                          fix=f"train on {whole!r}")
    all_labels = labels(source, whole, "config.data.per_class")
    if all_labels.ndim != 1:
        raise ConfigError("per_class needs data with one label per example",
                          where="config.data.per_class", fix="leave it out")
    drawn = np.sort(np.concatenate([
        generator(label).permutation(np.flatnonzero(all_labels == label))[:count]
        for label in range(len(source.classes))]))
    return dataclasses.replace(
        source, files=None, sizes={**source.sizes, whole: len(drawn)},
        open=lambda split: _chosen(source.open(split), drawn) if split == whole else
        source.open(split))


def _chosen(opened: Lookup, members: np.ndarray, number: np.ndarray | None = None) -> Lookup:
    """Some examples of a Lookup; label k becomes number[k]."""
    def read(index):
        tf = tensorflow()
        row = opened.read(tf.gather(members, index))
        return row if number is None else {**row, "label": tf.gather(number, row["label"])}

    def chosen_labels():
        kept = np.asarray(opened.labels())[members]
        return kept if number is None else number[kept]

    def chosen_listed():
        names, labels = opened.listed()
        labels = labels if labels is None else [labels[i] for i in members]
        return [names[i] for i in members], labels if number is None else number[labels]

    return Lookup(len(members), read, lambda index: opened.where(int(members[index])),
                  chosen_labels,
                  opened.version and (lambda index: opened.version(int(members[index]))),
                  opened.listed and chosen_listed)


def _bounds(source: Source, name: str, where: str = "") -> tuple[str, int, int]:
    """(split, first, last) of `split[from:to]`; percents are rounded to the closest, as TFDS."""
    where = where or f"data of {source.name}"
    match = re.fullmatch(r"([\w-]+)(?:\[(?:(-?\d+)(%?))?:(?:(-?\d+)(%?))?\])?", name)
    if not match:
        raise ConfigError(f"{name!r} is not a split", where=where,
                          fix="write it as 'train', 'train[:90%]' or 'train[1000:]'")
    whole, first, first_unit, last, last_unit = match.groups()
    if whole not in source.sizes:
        raise ConfigError(f"{source.name} has no split {whole!r}", where=where,
                          fix=f"use one of {sorted(source.sizes)} or a part of one, such as "
                              "'train[90%:]'")
    count = source.sizes[whole]

    def place(number, unit, default):
        if number is None:
            return default
        index = round(int(number) * count / 100) if unit else int(number)
        if abs(index) > count:
            raise ConfigError(f"{name!r} asks for more than the {count:,} examples of {whole!r}",
                              where=where,
                              fix=f"stay within 0 and {count}, or use percents up to 100%")
        return index + count if index < 0 else index

    first, last = place(first, first_unit, 0), place(last, last_unit, count)
    if not count:
        raise ConfigError(f"{name!r} is empty: {'it' if name == whole else repr(whole)} has no "
                          "examples", where=where,
                          fix="name another split; if config.data.only is set, keep a class that "
                              "has examples in this one")
    if first == last and "%" in name:
        raise ConfigError(f"{name!r} is empty: it is 0 of {count:,} examples", where=where,
                          fix="take a larger part")
    if first >= last:
        raise ConfigError(f"{name!r} is empty: it begins at example {first:,} of {count:,} and "
                          f"ends before {last:,}", where=where, fix="begin before the end")
    return whole, first, last
