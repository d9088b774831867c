"""Record files of tf.train.Example: finding, counting and reading them, by stream or by index.

A TFRecord file is records of length (u64), its checksum (u32), data and its checksum (u32).
"""

import functools
import glob
import importlib
import os
import re
import struct
from collections.abc import Callable, Sequence

import numpy as np

from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.datasets import _paths
from imgcls_jax.errors import ConfigError, DataError, EnvironmentFailure
from imgcls_jax.types import Lookup, Shards

HEADER, FOOTER = 12, 4  # bytes before and after the data of a record
INDEX = ".index.npy"  # next to a TFRecord file: u64[n,2], as `index` returns it
COPY_AGAIN = "copy the file again, or prepare the dataset again"


def find_all(files: str | dict) -> dict[str, list[str]]:
    """The files of each split. files: a glob of `train`'s files, or a glob for each split."""
    if isinstance(files, str):
        return {"train": find(files, "config.data.files")}
    if not files or not all(isinstance(pattern, str) for pattern in files.values()):
        raise ConfigError(f"files={files!r} is not a glob", where="config.data.files",
                          fix="give a glob, or dict(train=..., validation=...) of globs")
    return {split: find(pattern, f"config.data.files.{split}")
            for split, pattern in files.items()}


def find(pattern: str, where: str) -> list[str]:
    """The files of a glob, sorted. DataError if there is none or some of `-of-N` are missing."""
    files = sorted(path for path in glob.glob(os.path.expanduser(pattern))
                   if not path.endswith(INDEX))
    if not files:
        raise DataError(f"no file matches {pattern!r}", where=where, fix="correct the pattern")
    odd = [path for path in files if not os.path.isfile(path)]
    if odd:
        raise DataError("it is no file", where=odd[0], fix="correct the pattern, or remove it")
    numbered = [re.search(r"-(\d+)-of-(\d+)", os.path.basename(path)) for path in files]
    if all(numbered):
        found = {int(match[1]) for match in numbered}
        wanted = {int(match[2]) for match in numbered}
        if len(wanted) != 1 or len(files) != max(wanted) or found != set(range(max(wanted))):
            missing = sorted(set(range(max(wanted))) - found)
            raise DataError(f"found {len(files)} files of {sorted(wanted)}; missing {missing[:8]}",
                            where=pattern, fix="copy the missing files, remove those of another "
                                               "dataset")
    return files


def index(files: Sequence[str]) -> list[np.ndarray]:
    """u64[n,2] for each TFRecord file: offset and length of the data of each record.

    Read from FILE.index.npy if every file has one, else found once by following the lengths.
    DataError for a file that ends within a record or holds none, and for an index that is not of
    its file.
    """
    def make(folder):
        found = [_hop(path) for path in files]
        np.save(folder / "counts.npy", np.array([len(rows) for rows in found], np.int64))
        np.save(folder / "index.npy", np.concatenate(found))

    beside = [path + INDEX for path in files]
    if all(map(os.path.isfile, beside)):
        return [_beside(path) for path in files]
    folder = _paths.learn(_paths.learned(files, {"records": 1}), make)
    ends = np.load(folder / "counts.npy").cumsum()
    return np.split(np.load(folder / "index.npy", mmap_mode="r"), ends[:-1])


def _beside(path: str) -> np.ndarray:
    """The index next to a file: from its first byte to its last, each record once, in order."""
    try:
        rows = np.load(path + INDEX, mmap_mode="r")
        if rows.dtype != np.uint64 or rows.ndim != 2 or rows.shape[1] != 2 or not len(rows):
            raise ValueError("it is not of u64[n,2]")
        begins = rows[:, 0] - np.uint64(HEADER)
        ends = rows[:, 0] + rows[:, 1] + np.uint64(FOOTER)  # a wild length wraps, and fits nowhere
        whole = begins[0] == 0 and ends[-1] == os.path.getsize(path) and (begins < ends).all()
        if not whole or (begins[1:] != ends[:-1]).any():
            raise ValueError("its records do not fill the file")
    except Exception as error:  # its header may be anything
        raise DataError(f"the index is not of its file: {error}", where=path + INDEX,
                        fix="remove it: the index is then made again, and kept elsewhere"
                        ) from error
    return rows


def _hop(path: str) -> np.ndarray:
    rows, end = _whole(path)
    if end != os.path.getsize(path):
        raise DataError("the record file is cut off or damaged: it ends within the record",
                        where=f"{path}, record {len(rows)}", fix=COPY_AGAIN)
    if not rows:
        raise DataError("the record file holds no records", where=path, fix=COPY_AGAIN)
    return np.array(rows, np.uint64)


def whole(path: str) -> int:
    """The number of whole records that a TFRecord file begins with."""
    return len(_whole(path)[0])


def _whole(path: str) -> tuple[list[tuple[int, int]], int]:
    """(offset and length of the data of each whole record, where the last ends)."""
    size, place, rows = os.path.getsize(path), 0, []
    with open(path, "rb", buffering=0) as file:
        while place + HEADER + FOOTER <= size:
            length = struct.unpack("<Q", os.pread(file.fileno(), 8, place))[0]
            if place + HEADER + length + FOOTER > size:
                break
            rows.append((place + HEADER, length))
            place += HEADER + length + FOOTER
    return rows, place


def stream(files: Sequence[tuple[str, int]], parse: Callable) -> Shards:
    """TFRecord files with their counts, read in order."""
    def records(path):
        tf = tensorflow()
        return tf.data.TFRecordDataset(path)

    return Shards(tuple((path, 0, count) for path, count in files), records, parse)


def by_index(files: Sequence[str], parse: Callable) -> Lookup:
    """TFRecord files read by index; each record's checksum is verified."""
    found = index(files)
    counts = np.array([len(rows) for rows in found], np.int64)

    @functools.cache
    def columns():
        """i64[3,n]: file, offset of the record and its bytes: an input of the graph."""
        tf = tensorflow()
        rows = np.concatenate(found).astype(np.int64).T
        with tf.init_scope():
            return tf.constant(files), tf.constant(np.stack(
                [np.repeat(np.arange(len(files)), counts), rows[0] - HEADER,
                 rows[1] + HEADER + FOOTER]))

    def read(number):
        tf = tensorflow()
        paths, table = columns()
        file, offset, size = tf.unstack(tf.gather(table, number, axis=1))
        shape = dict(output_types=[tf.string], output_shapes=[[]])
        records = tf.raw_ops.TFRecordDatasetV2(
            filenames=tf.gather(paths, file)[None], compression_type="", buffer_size=size,
            byte_offsets=offset[None])
        first = tf.raw_ops.TakeDataset(input_dataset=records, count=tf.constant(1, tf.int64),
                                       **shape)
        return parse(tf.raw_ops.DatasetToSingleElement(dataset=first, **shape)[0])

    return _lookup(files, counts, read, parse)


def array_records(files: Sequence[str], parse: Callable,
                  counts: Sequence[int] | None = None) -> Lookup:
    """ArrayRecord files read by index. counts: how many they should hold, else as found."""
    found = [array_record_count(path) for path in files]
    for path, holds, wanted in zip(files, found, counts or found, strict=True):
        if holds != wanted:
            raise DataError(f"found {holds:,} records, the metadata says {wanted:,}", where=path,
                            fix=COPY_AGAIN)

    @functools.cache
    def source():
        return _array_record("array_record_data_source").ArrayRecordDataSource(list(files))

    def read(number):
        tf = tensorflow()
        record = tf.numpy_function(lambda i: source()[int(i)], [number], tf.string)
        return parse(tf.ensure_shape(record, ()))

    return _lookup(files, np.array(found, np.int64), read, parse)


def array_record_count(path: str) -> int:
    """The number of records; DataError if it is not a whole ArrayRecord file."""
    try:
        if not os.path.getsize(path):
            raise ValueError("it has zero bytes")
        reader = _array_record("array_record_module").ArrayRecordReader(path)
        count = reader.num_records()
        reader.close()
        return count
    except (OSError, ValueError, RuntimeError) as error:
        text = str(error).strip().split("\n")[0]
        raise DataError(f"the file is not a whole ArrayRecord file: {text}", where=path,
                        fix=COPY_AGAIN) from error


def _array_record(module: str):
    try:
        return importlib.import_module(f"array_record.python.{module}")
    except ImportError as error:
        raise EnvironmentFailure("the package array_record is not installed",
                                 where="ArrayRecord files", fix="pip install array_record"
                                 ) from error


def _lookup(files: Sequence[str], counts: np.ndarray, read: Callable, parse: Callable) -> Lookup:
    ends = counts.cumsum()
    rule = getattr(parse, "rule", [])  # what labels depend on besides the files

    def place(number: int) -> tuple[str, int]:
        file = int(np.searchsorted(ends, number, "right"))
        return files[file], int(number - ends[file] + counts[file])

    size = int(ends[-1])
    return Lookup(size, read, lambda number: "{}, record {}".format(*place(number)),
                  lambda: _labels(files, size, read, rule),
                  lambda number: _paths.version(*place(number)),
                  lambda: ([b"%s, record %d" % (os.fsencode(os.path.basename(file)), record)
                            for file, count in zip(files, counts, strict=True)
                            for record in range(count)], None))


def _labels(files: Sequence[str], size: int, read: Callable, rule: list) -> np.ndarray:
    """All labels. Every record is read once for them; they are then kept."""
    def make(folder):
        tf = tensorflow()
        labels = tf.data.Dataset.range(size).map(lambda number: read(number)["label"],
                                                 num_parallel_calls=os.cpu_count())
        try:
            found = np.concatenate([*labels.batch(1024).as_numpy_iterator()])
        except tf.errors.OpError as error:
            raise DataError("the labels cannot be read: " + str(error.message).split("\n")[0],
                            where=files[0], fix="run: imgcls data check") from error
        np.save(folder / "labels.npy", found.astype(np.int32 if found.ndim == 1 else np.float32))

    folder = _paths.learn(_paths.learned(files, {"labels": rule}), make)
    return np.load(folder / "labels.npy", mmap_mode="r")


# ---- examples -----------------------------------------------------------------------------------


def parser(first: Callable[[], bytes], where: str, *, image_key: str, label_key: str,
           classes: int, multilabel: bool, offset: int = 0) -> Callable:
    """(bytes[] tensor) -> dict(image, label). first: returns a record, which shows what the
    features are. offset is subtracted from integer labels."""
    tf = tensorflow()
    try:
        features = tf.train.Example.FromString(first()).features.feature
    except tf.errors.OpError as error:
        raise DataError("the first record cannot be read: " + str(error.message).split("\n")[0],
                        where=where, fix=COPY_AGAIN) from error
    except Exception as error:
        raise DataError("the records are not tf.train.Example", where=where,
                        fix="use record files of tf.train.Example") from error
    kinds = {key: feature.WhichOneof("kind") for key, feature in features.items()}
    integers = kinds.get(label_key) == "int64_list"
    if kinds.get(image_key) != "bytes_list" or not (
            integers or (multilabel and kinds.get(label_key) == "float_list")):
        raise DataError(f"the features {kinds} are not an image {image_key!r} as bytes and a label "
                        f"{label_key!r}", where=where,
                        fix="name them in config.data.image_key and config.data.label_key")
    if not integers:
        label = tf.io.FixedLenFeature((classes,), tf.float32)
    elif multilabel:
        label = tf.io.VarLenFeature(tf.int64)
    else:
        label = tf.io.FixedLenFeature((), tf.int64)

    def parse(record):
        row = tf.io.parse_single_example(
            record, {image_key: tf.io.FixedLenFeature((), tf.string), label_key: label})
        found = row[label_key]
        if integers and multilabel:
            found = tf.reduce_max(tf.one_hot(tf.sparse.to_dense(found) - offset, classes), 0)
            found = tf.maximum(found, 0.0)  # without any label the maximum is -inf
        elif integers:
            found -= offset
        return {"image": row[image_key], "label": found}

    parse.rule = [label_key, classes, multilabel, offset]
    return parse


def first_of(split: Lookup | Shards) -> bytes:
    """The first record of a split whose parse returns the record itself."""
    tf = tensorflow()
    if isinstance(split, Lookup):
        return split.read(tf.constant(0, tf.int64))["record"].numpy()
    for record in split.records(tf.constant(split.files[0][0])).take(1):
        return record.numpy()
    return b""


def as_record(record) -> dict:
    return {"record": record}
