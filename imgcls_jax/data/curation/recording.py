"""Writes a split as record files in a shuffled order, which the dataset `prepared` reads.

A record is a tf.train.Example of `image` (encoded bytes), `label` (an int64, or K floats) and
`name` (what the example was called). A TFRecord file FILE has an index next to it,
FILE.index.npy, u64[n,2]: where the data of each record begins, and its length, in bytes.
"""

import dataclasses
import errno
import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from imgcls_jax.data.curation import examples
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.datasets import _paths
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup, Shards

BUFFERS = 256 << 20  # bytes held in memory of all the files that a split is distributed over
FRAME = struct.Struct("<QQ")  # place in the order, length


@dataclasses.dataclass
class File:
    """One record file as dataset.json has it; bad: the examples that it leaves out; source: what
    changes when the files that its examples were read from do."""
    file: str
    count: int
    bytes: int
    sha256: str
    bad: list[dict] = dataclasses.field(default_factory=list)
    source: str = ""


def write_split(split: Lookup | Shards, name: str, folder: Path, *, encode: Callable, shards: int,
                seed: Sequence[int], form: str, skip: bool, threads: int,
                done: dict[str, File]) -> Iterator[File]:
    """Writes record files of equal numbers of examples, within one; gives each when it is written.

    encode: (image, label) -> bytes of the image. shards: number of files. seed: of the order. form:
    "tfrecord" or "array_record". done: files of an earlier run, which stay unless what
    they were read from has changed. skip: leave out an
    example that cannot be read; else it raises DataError.
    """
    order = np.random.default_rng(seed).permutation(split.size)
    ends = np.arange(1, shards + 1) * split.size // shards
    names = [f"{name}-{i:05}-of-{shards:05}.{form}" for i in range(shards)]
    parts = [(file, int(first), int(last))
             for file, first, last in zip(names, [0, *ends[:-1]], ends, strict=True)]
    for file, first, last in parts:
        if file in done and done[file].source != state(split, order[first:last]):
            del done[file]

    def record(index, image, label):
        return _example(encode(image, label), label, split.where(index))

    if isinstance(split, Lookup):
        def rows(first, last):
            return examples.each(split, record, order[first:last], threads=threads)
    else:
        rows = _spread(split, record, folder, name, order, ends, threads, done.keys() >= {*names})

    for file, first, last in parts:
        if file not in done:
            source = state(split, order[first:last])  # before reading: a later change is noticed
            written = _write(folder / file, rows(first, last), split, name, form, skip)
            done[file] = dataclasses.replace(written, source=source)
            _remember(folder, done[file])
        yield done[file]
    for path in folder.glob(f"{name}-*.unordered"):  # of files that were finished before
        path.unlink()


def state(split: Lookup | Shards, members: np.ndarray) -> str:
    """A digest of the paths, sizes and times of the files that these examples are in."""
    found = hashlib.sha256()
    try:
        if isinstance(split, Shards):
            for path, _, _ in split.files:
                found.update(_paths.version(path).encode("utf-8", "surrogateescape"))
        elif split.version:
            for index in members:
                found.update(split.version(int(index)).encode("utf-8", "surrogateescape"))
    except OSError as error:  # of a file that is missing; reading it says so
        found.update(str(error).encode("utf-8", "surrogateescape"))
    return found.hexdigest()[:32]


def _example(image: bytes, label: np.ndarray, name: str) -> bytes:
    tf = tensorflow()
    train, label = tf.train, np.asarray(label)
    value = (train.Feature(float_list=train.FloatList(value=label)) if label.ndim else
             train.Feature(int64_list=train.Int64List(value=[int(label)])))

    def of_bytes(data):
        return train.Feature(bytes_list=train.BytesList(value=[data]))

    return train.Example(features=train.Features(feature={
        "image": of_bytes(image), "label": value,
        "name": of_bytes(name.encode("utf-8", "backslashreplace"))})).SerializeToString()


# ---- examples that come in an order of their own ------------------------------------------------


def _spread(split: Shards, record: Callable, folder: Path, name: str, order: np.ndarray,
            ends: np.ndarray, threads: int, finished: bool) -> Callable:
    """Reads a split of record files once, in their order, and stores each example with the shard
    that it belongs to. Gives a function: part of the order -> what `examples.each` gives of it."""
    if finished:
        return lambda first, last: ()
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    spread = _Spread([folder / f"{name}-{i}.unordered" for i in range(len(ends))])
    faults: dict[int, list] = {}
    for index, found in examples.each(split, record, threads=threads):
        if index is None:  # a whole file: the number of examples is no longer known
            raise found
        shard = int(np.searchsorted(ends, places[index], "right"))
        if isinstance(found, DataError):
            faults.setdefault(shard, []).append((index, found))
        else:
            spread.add(shard, int(places[index]), found)
    spread.flush()

    def rows(first, last):
        shard = int(np.searchsorted(ends, first, "right"))
        yield from faults.get(shard, ())
        yield from ((int(order[place]), data) for place, data in spread.take(shard))

    return rows


class _Spread:
    """Many unordered files, written a buffer at a time, of which one is open at a time."""

    def __init__(self, paths: list[Path]):
        self._paths, self._buffers, self._held = paths, [bytearray() for _ in paths], 0
        for path in paths:
            path.unlink(missing_ok=True)

    def add(self, shard: int, place: int, data: bytes):
        self._buffers[shard] += FRAME.pack(place, len(data)) + data
        self._held += len(data)
        if self._held > BUFFERS:
            self.flush()

    def flush(self):
        for path, buffer in zip(self._paths, self._buffers, strict=True):
            with path.open("ab") as file:
                file.write(buffer)
            buffer.clear()
        self._held = 0

    def take(self, shard: int) -> Iterator[tuple[int, bytes]]:
        """(place, data) in the order of the places; the file is gone afterwards."""
        path, where = self._paths[shard], []
        with path.open("rb") as file:
            while head := file.read(FRAME.size):
                place, length = FRAME.unpack(head)
                where.append((place, file.tell(), length))
                file.seek(length, os.SEEK_CUR)
            for place, begin, length in sorted(where):
                file.seek(begin)
                yield place, file.read(length)
        path.unlink()


# ---- one file -----------------------------------------------------------------------------------


def _write(path: Path, rows: Iterable, split, name: str, form: str, skip: bool) -> File:
    tf = tensorflow()
    temporary, bad, lengths = path.with_name(f".{path.name}.tmp"), [], []
    writer = _tfrecord(temporary) if form == "tfrecord" else _array_record(temporary)
    try:
        for index, record in rows:
            if isinstance(record, DataError):
                where = record.where or split.where(index)
                if not skip:
                    raise DataError(record.what, where=where,
                                    fix="repair or remove it, or give --on_error=skip")
                bad.append({"split": name, "where": where, "reason": record.what})
                continue
            writer.write(record)
            lengths.append(len(record))
        writer.close()
    except tf.errors.OpError as error:  # of the writer, whose disk may be full
        raise OSError(errno.EIO, error.message.rpartition("; ")[2], os.fspath(path)) from error
    if form == "tfrecord":
        begins = np.cumsum([12, *(length + 16 for length in lengths)])[:len(lengths)]
        with path.with_name(f"{path.name}.index.npy").open("wb") as file:
            np.save(file, np.stack([begins, lengths], 1).astype(np.uint64).reshape(-1, 2))
    with temporary.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    temporary.replace(path)
    return File(path.name, len(lengths), path.stat().st_size, digest, bad)


def _tfrecord(path: Path):
    tf = tensorflow()
    return tf.io.TFRecordWriter(os.fspath(path))


def _array_record(path: Path):
    from array_record.python.array_record_module import ArrayRecordWriter

    # A group of one: a random example is read without its neighbours. Images are compressed
    # already.
    return ArrayRecordWriter(os.fspath(path), "group_size:1,uncompressed")


# ---- what was done before -----------------------------------------------------------------------


def _remember(folder: Path, file: File):
    """Notes a finished file, for a later run that continues this one."""
    with (folder / "progress.jsonl").open("a") as progress:
        progress.write(json.dumps(dataclasses.asdict(file)) + "\n")


def remembered(folder: Path) -> dict[str, File]:
    """The finished files of an earlier run that are there as they were written, by name."""
    path, found = folder / "progress.jsonl", {}
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            file = File(**json.loads(line.decode()))
        except (ValueError, TypeError):  # cut off in the middle of a line, or of a character
            continue
        there = folder / file.file
        if there.is_file() and there.stat().st_size == file.bytes:
            found[file.file] = file
    return found
