"""Every example of a split, not decoded; one that cannot be read does not hide the others."""

import collections
import concurrent.futures
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from imgcls_jax.data import decoding, salvage
from imgcls_jax.data.decoding import pillow
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.types import Lookup, Shards, Source

AHEAD = 8  # examples in work per thread


def splits(source: Source, wanted: Sequence[str] | None = None) -> list[str]:
    """The names of the wanted splits, by default all, "train" first. Raises ConfigError."""
    for name in wanted or ():
        if name not in source.sizes:
            raise ConfigError(f"{source.name} has no split {name!r}", where="--splits",
                              fix=f"use one of {sorted(source.sizes)}")
    order = list(source.sizes)
    return sorted(wanted or order, key=lambda name: (name != "train", order.index(name)))


def each(split: Lookup | Shards, work: Callable[[int, Any, Any], Any],
         indices: Sequence[int] | None = None, *, threads: int) -> Iterator[tuple[int | None, Any]]:
    """(index, work(index, image, label)) of every example in order; the work is done in threads.

    image: encoded bytes or u8[H,W,C]; label: as numpy. indices: which of a Lookup; all by default.
    Where an example cannot be read, or work raises, a DataError takes the place of the result; with
    the index None it is about a whole record file. Raises DataError if the split cannot be read at
    all.
    """
    read = _reader(split)

    def one(index, raw):
        try:
            if isinstance(raw, DataError):
                raise raw
            return index, work(index, *read(raw))
        except Exception as error:  # of any kind: it is a fault of this example
            return index, _named(error, "" if index is None else split.where(index))

    if isinstance(split, Lookup):
        rows = ((int(i), int(i)) for i in (range(split.size) if indices is None else indices))
    else:
        rows = _records(split)
    yield from _in_order(one, rows, threads)


def decoder() -> Callable[[bytes], np.ndarray]:
    """A function: bytes -> u8[H,W,3], decoded as in training. It raises DataError."""
    tf = tensorflow()
    traced = tf.function(lambda data: decoding.decode(data, 3), autograph=False, input_signature=[
        tf.TensorSpec((), tf.string)]).get_concrete_function()

    def decode(data):
        try:
            return traced(tf.constant(data)).numpy()
        except tf.errors.OpError as error:
            pillow.decode(data)  # says more; TensorFlow refuses some of what Pillow reads
            raise DataError(f"the image is damaged: {_named(error, '').what}") from error

    return decode


def _in_order(work: Callable, rows: Iterable[tuple], threads: int) -> Iterator:
    """work(*row) of every row in order, by a pool of threads that reads a little ahead."""
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        pending = collections.deque()
        try:
            for row in rows:
                pending.append(pool.submit(work, *row))
                if len(pending) >= AHEAD * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _reader(split: Lookup | Shards) -> Callable[[Any], tuple]:
    """(index or undecoded record) -> (image, label)."""
    tf = tensorflow()
    load, kind = ((split.read, tf.int64) if isinstance(split, Lookup)
                  else (split.parse, tf.string))
    try:
        traced = tf.function(load, autograph=False, input_signature=[
            tf.TensorSpec((), kind)]).get_concrete_function()
    except (tf.errors.OpError, OSError, ValueError) as error:
        raise _named(error, "all of the split") from error

    def read(raw):
        # TensorFlow would keep the constant of a Python number for ever.
        row = traced(tf.constant(np.int64(raw) if kind == tf.int64 else raw))
        image, label = row["image"].numpy(), row["label"].numpy()
        return image, label[()] if label.ndim == 0 else label

    return read


def _records(split: Shards) -> Iterator[tuple[int | None, bytes | DataError]]:
    """(index, undecoded record or what is wrong with it), then what is wrong with its file."""
    base = 0
    for path, first, count in split.files:
        places = whole = 0
        try:
            for place, record in enumerate(_file(split, path)):
                places, whole = place + 1, whole + isinstance(record, bytes)
                if first <= place < first + count:
                    yield base + place - first, record
            if places < first + count or (places > count and not first):
                raise DataError(f"the file holds {whole:,} whole records, its metadata says "
                                f"{first + count:,}", where=path,
                                fix="copy the file again, or prepare the dataset again")
        except DataError as error:
            yield None, error
        base += count


def _file(split: Shards, path: str) -> Iterator[bytes | DataError]:
    """The records of one file. DataError where none can be found after a damaged one."""
    tf = tensorflow()
    read = 0
    try:
        for record in split.records(tf.constant(os.fsencode(path))):
            yield record.numpy()
            read += 1
        return
    except (tf.errors.OpError, OSError) as error:
        reason = error
    gaps = salvage.gaps(path) if os.path.isfile(path) else None
    if not gaps:  # another kind of file, or none
        raise _named(reason, path)
    damaged = {number for number, _, _ in gaps}
    with tempfile.TemporaryDirectory(prefix="imgcls_records_") as folder:
        copy = os.path.join(folder, "copy")
        salvage.write_without(path, gaps, copy)
        for place, record in enumerate(split.records(tf.constant(os.fsencode(copy)))):
            if place >= read:
                yield DataError("the record is damaged") if place in damaged else record.numpy()


def _named(error: Exception, where: str) -> DataError:
    """The error as a DataError of the example, in one line, without names of graph nodes."""
    if isinstance(error, DataError):
        return DataError(error.what, where=error.where or where, fix=error.fix)
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    # In an error of a graph, the lines before say where it was made, those after where in it.
    lines = [line for line in text.split("\n")
             if not re.match(r"Graph execution error|Detected at node|\s|$", line)]
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*|^\w*Error: (error: )?", "", (lines or [text])[0])
    return DataError(text.strip(), where=where)
