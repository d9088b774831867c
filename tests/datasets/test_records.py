"""Record files: their examples by stream and by index, and what is missing, cut off or changed."""

import hashlib
import json

import numpy as np
import pytest
import tensorflow as tf
from array_record.python import array_record_module

from imgcls_jax import datasets
from imgcls_jax.datasets import DATASETS
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup, Shards
from tests.datasets.sources import assert_same, png, read_all, train

COUNTS = {"train": (7, 9, 6), "validation": (5,)}
NAMES = ["ant", "bee", "cat"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGCLS_DATA_CACHE", str(tmp_path / "cache"))


def example(number, keys, label=None) -> bytes:
    label = [number % 3] if label is None else label
    features = {
        keys[0]: tf.train.Feature(bytes_list=tf.train.BytesList(value=[png(number)])),
        keys[1]: tf.train.Feature(float_list=tf.train.FloatList(value=label)
                                  if isinstance(label[0], float) else None,
                                  int64_list=tf.train.Int64List(value=label)
                                  if isinstance(label[0], int) else None),
        "name": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"%d" % number]))}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_file(path, records):
    if path.suffix == ".array_record":
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    else:
        writer = tf.io.TFRecordWriter(str(path))
    for record in records:
        writer.write(record)
    writer.close()


def write(place, form="tfrecord", keys=("image/encoded", "image/class/label"), label=None):
    """The files of each split; record n of a split is image n."""
    listed = {}
    for split, counts in COUNTS.items():
        number, listed[split] = 0, []
        for i, count in enumerate(counts):
            path = place / f"{split}-{i:05d}-of-{len(counts):05d}.{form}"
            write_file(path, [example(n, keys, label and label(n)) for n in
                              range(number, number + count)])
            number += count
            listed[split].append({"file": path.name, "count": count,
                                  "bytes": path.stat().st_size,
                                  "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    return listed


def prepare(place, form="tfrecord", kind="multiclass", label=None):
    files = write(place, form, ("image", "label"), label)
    (place / "dataset.json").write_text(json.dumps({
        "version": 1, "name": "numbers", "classes": NAMES, "kind": kind, "channels": 3,
        "image_size": [4, 6], "format": form, "resized_short_side": None,
        "splits": {split: {"files": found, "count": sum(COUNTS[split])}
                   for split, found in files.items()}}))
    return place


def source(kind, place, **arguments):
    """A dataset of the kind, written to `place`."""
    form = "array_record" if "array_record" in kind else "tfrecord"
    if kind.startswith("prepared"):
        prepare(place, form)
        return DATASETS.get("prepared")(dir=str(place), by_index="by_index" in kind, **arguments)
    write(place, form)
    if "by_index" in kind:
        arguments["by_index"] = True
    files = dict(train=f"{place}/train-*", validation=f"{place}/validation*")
    return DATASETS.get(form)(files=files, **{"classes": 3, **arguments})


KINDS = {"tfrecord": Shards, "tfrecord by_index": Lookup, "array_record": Lookup,
         "prepared": Shards, "prepared by_index": Lookup, "prepared array_record": Lookup}


@pytest.mark.daily(4)
@pytest.mark.parametrize("kind", KINDS)
def test_examples_come_in_order_with_their_labels(kind, tmp_path):
    made = source(kind, tmp_path)
    assert made.sizes == {"train": 22, "validation": 5}
    for split, count in made.sizes.items():
        batch = read_all(made, split)
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], np.arange(count))
        np.testing.assert_array_equal(batch["label"], np.arange(count) % 3)
        opened = datasets.split(made, split)
        assert type(opened) is KINDS[kind]
    opened = datasets.split(made, "train")
    form = "array_record" if "array_record" in kind else "tfrecord"
    assert opened.where(8) == f"{tmp_path}/train-00001-of-00003.{form}, record 1"
    if isinstance(opened, Lookup):
        np.testing.assert_array_equal(opened.labels(), np.arange(22) % 3)
        assert opened.labels().dtype == np.int32
        assert sorted(np.concatenate([batch["id"] for batch in train(made, 11, size=2)])) == [
            *range(22)]


def test_names_offset_and_keys_are_arguments(tmp_path):
    write(tmp_path, keys=("jpeg", "class"), label=lambda n: [n % 3 + 1])
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    made = DATASETS.get("tfrecord")(files=f"{tmp_path}/train*", classes=f"{tmp_path}/names.txt",
                                    image_key="jpeg", label_key="class", label_offset=1)
    assert (made.classes, made.sizes) == (tuple(NAMES), {"train": 22})
    np.testing.assert_array_equal(read_all(made, "train")["label"], np.arange(22) % 3)


@pytest.mark.daily(1)
@pytest.mark.parametrize("kind", ["tfrecord", "array_record"])
def test_multilabel_is_floats_or_numbers(kind, tmp_path):
    dense = np.array([[n % 2, 1, n % 3 == 0] for n in range(22)], np.float32)
    prepare(tmp_path, kind, "multilabel", lambda n: [float(n % 2), 1.0, float(n % 3 == 0)])
    made = DATASETS.get("prepared")(dir=str(tmp_path), by_index=True)
    assert made.kind == "multilabel"
    np.testing.assert_array_equal(read_all(made, "train")["label"], dense)
    np.testing.assert_array_equal(datasets.split(made, "train").labels(), dense)
    other = tmp_path / "numbers"
    other.mkdir()
    write(other, kind, label=lambda n: [k for k in range(3) if dense[n % 22, k]])
    made = DATASETS.get(kind)(files=f"{other}/train*", classes=3, kind="multilabel")
    np.testing.assert_array_equal(read_all(made, "train")["label"], dense)


def test_an_index_beside_the_files_is_used(tmp_path):
    found = []
    prepare(tmp_path)
    made = DATASETS.get("prepared")(dir=str(tmp_path), by_index=True)
    found.append(read_all(made, "train"))
    for path in tmp_path.glob("*.tfrecord"):
        lengths = [len(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
        begins = 12 + np.cumsum([0] + [length + 16 for length in lengths[:-1]])
        np.save(f"{path}.index.npy", np.stack([begins, lengths], 1).astype(np.uint64))
    found.append(read_all(made, "train"))
    assert_same(found[:1], found[1:])
    globbed = DATASETS.get("tfrecord")(files=f"{tmp_path}/train*", classes=3, image_key="image",
                                       label_key="label")
    assert_same(found[:1], [read_all(globbed, "train")])


WRONG = {
    "lacks_a_row": lambda rows: np.delete(rows, 3, 0),
    "lacks_the_last": lambda rows: rows[:-1],
    "a_row_twice": lambda rows: np.insert(rows, 3, rows[3], 0),
    "another_order": lambda rows: rows[::-1],
    "wild_length": lambda rows: np.where(np.arange(len(rows) * 2).reshape(-1, 2) == 5, 2**62, rows),
    "shifted": lambda rows: rows + np.uint64([1, 0]),
    "no_rows": lambda rows: rows[:0],
    "signed": lambda rows: rows.astype(np.int64),
    "flat": lambda rows: rows[:, 0],
    "objects": lambda rows: rows.astype(object),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_index_that_is_not_of_its_file_is_refused(tmp_path, wrong):
    prepare(tmp_path)
    for path in tmp_path.glob("*.tfrecord"):
        lengths = [len(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
        begins = 12 + np.cumsum([0] + [length + 16 for length in lengths[:-1]])
        rows = np.stack([begins, lengths], 1).astype(np.uint64)
        np.save(f"{path}.index.npy", rows if "00001" not in path.name else WRONG[wrong](rows))
    split = DATASETS.get("prepared")(dir=str(tmp_path), by_index=True)
    with pytest.raises(DataError, match="not of its file") as error:
        datasets.split(split, "train")
    assert error.value.where.endswith("train-00001-of-00003.tfrecord.index.npy")


def test_a_flipped_bit_costs_one_record_by_index(tmp_path):
    prepare(tmp_path)
    path = tmp_path / "train-00001-of-00003.tfrecord"
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 30] ^= 1
    path.write_bytes(data)
    split = datasets.split(DATASETS.get("prepared")(dir=str(tmp_path), by_index=True), "train")
    bad = []
    for i in range(22):
        try:
            split.read(tf.constant(i, tf.int64))
        except tf.errors.DataLossError:
            bad.append(i)
    assert bad == [7]


# ---- row 32: what is wrong with the files --------------------------------------------------------


def cut(within):
    def spoil(place):
        path = place / "train-00001-of-00003.tfrecord"
        data = path.read_bytes()
        last = int.from_bytes(data[:8], "little") + 16
        path.write_bytes(data[:last + 40] if within else data[:last])
    return spoil


def described(**values):
    def spoil(d):
        said = json.loads((d / "dataset.json").read_text())
        (d / "dataset.json").write_text(json.dumps(said | values))
    return spoil


SHARD = "train-00001-of-00003.tfrecord"
FAULTS = {
    "mid_record": (cut(True), r"found 2?\d+ bytes \(1 whole records\).* \(9 records\)", SHARD),
    "boundary": (cut(False), r"found 2?\d+ bytes \(1 whole records\).* \(9 records\)", SHARD),
    "zero": (lambda d: (d / SHARD).write_bytes(b""), r"found 0 bytes \(0 whole", SHARD),
    "missing": (lambda d: (d / SHARD).unlink(), "found 3 files, dataset.json says 4", SHARD),
    "extra": (lambda d: (d / "train-00003-of-00003.tfrecord").write_bytes(b""),
              "not one of the 4", "train-00003-of-00003.tfrecord"),
    "no_json": (lambda d: (d / "dataset.json").unlink(), "dataset.json is missing", "dataset.json"),
    "no_object": (lambda d: (d / "dataset.json").write_text("[]"), "not in its format",
                  "dataset.json"),
    "deep_json": (lambda d: (d / "dataset.json").write_text("[" * 100_000), "over 64 levels",
                  "dataset.json"),
    **{f"{key}_{value!r}": (described(**{key: value}), "not in its format", "dataset.json")
       for key, value in (("classes", "abc"), ("classes", [1]), ("channels", "3"), ("name", 1),
                          ("image_size", [8]), ("splits", []), ("image_size", "ab"),
                          ("splits", {"train": {"files": [], "count": 0}}))},
    "cut_json": (lambda d: (d / "dataset.json").write_text('{"a'), "damaged", "dataset.json"),
    "later": (lambda d: (d / "dataset.json").write_text(
        (d / "dataset.json").read_text().replace('"version": 1', '"version": 2')), "version 2",
        "dataset.json"),
    "counts": (lambda d: (d / "dataset.json").write_text(
        (d / "dataset.json").read_text().replace('"count": 22', '"count": 23')), "do not add up",
        "dataset.json"),
    "escape": (lambda d: (d / "dataset.json").write_text(
        (d / "dataset.json").read_text().replace(SHARD, "../" + SHARD)), "leaves the folder",
        "dataset.json"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_prepared_files_that_changed_are_refused_when_opened(fault, tmp_path):
    spoil, what, where = FAULTS[fault]
    spoil(prepare(tmp_path))
    with pytest.raises(DataError, match=what) as error:
        DATASETS.get("prepared")(dir=str(tmp_path))
    assert error.value.where == str(tmp_path / where) and error.value.fix


@pytest.mark.parametrize("fault", ["mid_record", "zero", "missing"])
def test_tfrecord_files_without_metadata_are_refused_as_far_as_can_be_seen(fault, tmp_path):
    write(tmp_path)
    FAULTS[fault][0](tmp_path)
    with pytest.raises(DataError) as error:
        DATASETS.get("tfrecord")(files=f"{tmp_path}/train*", classes=3)
    what, where = {"mid_record": ("ends within the record", f"{tmp_path}/{SHARD}, record 1"),
                   "zero": ("holds no records", f"{tmp_path}/{SHARD}"),
                   "missing": ("missing [1]", f"{tmp_path}/train*")}[fault]
    assert what in error.value.what and error.value.where == where


@pytest.mark.parametrize("fault", ["cut", "zero", "missing"])
def test_array_record_files_that_are_not_whole_are_refused(fault, tmp_path):
    write(tmp_path, "array_record")
    path = tmp_path / "train-00001-of-00003.array_record"
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:1000 * (fault == "cut")])
    with pytest.raises(DataError) as error:
        DATASETS.get("array_record")(files=f"{tmp_path}/train*", classes=3)
    assert error.value.where == (f"{tmp_path}/train*" if fault == "missing" else str(path))


def test_other_features_and_no_files_are_told(tmp_path):
    write(tmp_path, keys=("picture", "class"))
    made = DATASETS.get("tfrecord")(files=f"{tmp_path}/train*", classes=3)
    with pytest.raises(DataError, match=r"'picture': 'bytes_list'.*'image/encoded'"):
        datasets.split(made, "train")
    with pytest.raises(DataError, match="no file matches"):
        DATASETS.get("tfrecord")(files=f"{tmp_path}/none*", classes=3)
