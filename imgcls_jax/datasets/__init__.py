"""Datasets: `(*, ...) -> types.Source`. TensorFlow is imported inside functions only.

A split is asked for by its name or as a part of one, as in TFDS: `train[:99%]`, `train[-1000:]`.
"""

import contextlib
import contextvars
import dataclasses
import re
from collections.abc import Iterator

from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.registry import Registry
from imgcls_jax.types import Lookup, Shards, Source

DATASETS = Registry("dataset", __name__)
_faults: contextvars.ContextVar[list | None] = contextvars.ContextVar("faults", default=None)


def fault(error: DataError):
    """What a dataset calls in place of `raise` where it could go on without the thing at fault."""
    found = _faults.get()
    if found is None:
        raise error
    found.append(error)


@contextlib.contextmanager
def collecting() -> Iterator[list[DataError]]:
    """Datasets that are made inside list their faults, and leave out what is at fault."""
    found = []
    token = _faults.set(found)
    try:
        yield found
    finally:
        _faults.reset(token)


def size(source: Source, name: str) -> int:
    """The number of examples in a split or a part of one, without opening it."""
    _, first, last = _bounds(source, name)
    return last - first


def split(source: Source, name: str) -> Lookup | Shards:
    """Opens a split or a part of one. Examples are counted from the beginning of the part."""
    whole, first, last = _bounds(source, name)
    opened = source.open(whole)
    if (first, last) == (0, opened.size):
        return opened
    if isinstance(opened, Lookup):
        return Lookup(last - first, lambda index: opened.read(index + first),
                      lambda index: opened.where(index + first),
                      opened.labels and (lambda: opened.labels()[first:last]))
    files, begin = [], 0
    for path, skipped, count in opened.files:
        low, high = max(first - begin, 0), min(last - begin, count)
        if low < high:
            files.append((path, skipped + low, high - low))
        begin += count
    return dataclasses.replace(opened, files=tuple(files))


def _bounds(source: Source, name: str) -> tuple[str, int, int]:
    """(split, first, last) of `split[from:to]`; percents are rounded to the closest, as TFDS."""
    match = re.fullmatch(r"([\w-]+)(?:\[(?:(-?\d+)(%?))?:(?:(-?\d+)(%?))?\])?", name)
    if not match:
        raise ConfigError(f"{name!r} is no split", where=f"data of {source.name}",
                          fix="write it as 'train', 'train[:90%]' or 'train[1000:]'")
    whole, first, first_unit, last, last_unit = match.groups()
    if whole not in source.sizes:
        raise ConfigError(f"{source.name} has no split {whole!r}", where=f"data of {source.name}",
                          fix=f"use one of {sorted(source.sizes)}")
    count = source.sizes[whole]

    def place(number, unit, default):
        if number is None:
            return default
        index = round(int(number) * count / 100) if unit else int(number)
        if abs(index) > count:
            raise ConfigError(f"{name!r} asks for more than the {count:,} examples of {whole!r}",
                              where=f"data of {source.name}",
                              fix=f"stay within 0 and {count}, or use percents up to 100%")
        return index + count if index < 0 else index

    first, last = place(first, first_unit, 0), place(last, last_unit, count)
    if first >= last:
        raise ConfigError(f"{name!r} is empty: examples {first} to {last} of {count:,}",
                          where=f"data of {source.name}", fix="begin before the end")
    return whole, first, last
