"""Batches are a function of (seed, step); evaluation sees everything once; faults are named."""

import io
import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from imgcls_jax import datasets
from imgcls_jax.data import streams
from imgcls_jax.data.batches import eval_batches, train_batches
from imgcls_jax.data.faults import Faults
from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.transforms import TRANSFORMS
from imgcls_jax.types import Lookup, Shards, Source
from tests.datasets.sources import assert_same

CROP = dict(name="random_resized_crop", size=6)


def png(number: int, shape=(8, 8)) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((*shape, 3), number % 256, np.uint8)).save(file, "PNG")
    return file.getvalue()


def lookup(images, labels=None) -> Lookup:
    labels = np.zeros(len(images), np.int64) if labels is None else np.array(labels, np.int64)
    return Lookup(len(images), lambda i: {"image": tf.gather(images, i),
                                          "label": tf.gather(labels, i)},
                  lambda i: f"image {i}")


def numbers(count: int) -> Lookup:
    return lookup(np.arange(count * 4, dtype=np.int64).reshape(count, 2, 2, 1).astype(np.uint8))


def write_shards(place, counts, extra=0) -> Shards:
    """Records that hold the number of the example; `extra` of others around them in each file."""
    files, number = [], itertools.count()
    for i, count in enumerate(counts):
        path = f"{place}/{i}.tfrecord"
        with tf.io.TFRecordWriter(path) as writer:
            for _ in range(extra):
                writer.write(b"-1")
            for _ in range(count):
                writer.write(b"%d" % next(number))
            for _ in range(extra):
                writer.write(b"-1")
        files.append((path, extra, count))

    def parse(record):
        number = tf.strings.to_number(record, tf.int32)
        return {"image": tf.cast(tf.fill((2, 2, 1), number % 256), tf.uint8), "label": number}

    return Shards(tuple(files), tf.data.TFRecordDataset, parse)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("records"), (9, 14, 0, 5, 11, 1), extra=1)


@pytest.fixture(params=["lookup", "shards"])
def split(request, shards):
    return numbers(40) if request.param == "lookup" else shards


def train(split, count, *, batch_size=8, start=0, rows=None, seed=5, transforms=(), **arguments):
    batches = train_batches(
        split, transforms, batch_size=batch_size, seed=seed, start_step=start,
        rows=rows or slice(0, batch_size), channels=arguments.pop("channels", 1), **arguments)
    return list(itertools.islice(batches, count))


def test_a_batch_has_the_types_that_the_step_takes(split):
    (batch,) = train(split, 1)
    assert {name: (array.dtype, array.shape) for name, array in batch.items()} == {
        "image": (np.uint8, (8, 2, 2, 1)), "label": (np.int32, (8,)),
        "mask": (np.float32, (8,)), "id": (np.int64, (8,))}
    assert (batch["mask"] == 1).all()


def test_resuming_at_a_step_gives_the_batches_of_an_uninterrupted_run(split):
    whole = train(split, 16)
    assert_same(train(split, 5, start=11), whole[11:])


@pytest.mark.daily(2)
@pytest.mark.parametrize("split, hosts", [("lookup", 2), ("shards", 2), ("shards", 8)],
                         indirect=["split"])
def test_the_rows_of_all_hosts_are_the_global_batch(split, hosts):
    parts = [train(split, 3, start=3, rows=slice(h * 8 // hosts, (h + 1) * 8 // hosts))
             for h in range(hosts)]
    joined = [{name: np.concatenate([part[name] for part in step]) for name in step[0]}
              for step in zip(*parts, strict=True)]
    assert_same(joined, train(split, 3, start=3))


def test_batches_do_not_depend_on_the_number_of_threads(split, monkeypatch):
    transforms = [TRANSFORMS.get("pad_crop")(padding=1)]
    batches = []
    for threads in (1, 7):
        monkeypatch.setattr("imgcls_jax.data.batches._threads", lambda threads=threads: threads)
        batches.append(train(split, 12, transforms=transforms))
    assert_same(*batches)


def test_every_example_comes_once_an_epoch_in_a_new_order():
    ids = np.concatenate([batch["id"] for batch in train(numbers(40), 15)]).reshape(3, 40)
    assert (np.sort(ids) == np.arange(40)).all()
    assert len({tuple(epoch) for epoch in ids}) == 3
    assert train(numbers(40), 1, seed=6)[0]["id"].tolist() != ids[0, :8].tolist()


def test_every_record_comes_once_an_epoch_of_its_stream(shards):
    # 5 files that hold records are 4 streams: files 0 and 5, 1, 3, 4 of 9 + 1, 14, 5, 11 records.
    ids = np.stack([batch["id"] for batch in train(shards, 70)]).reshape(70, 4, 2)
    first = np.cumsum([0, 9, 14, 0, 5, 11])
    for stream, files in enumerate(([0, 5], [1], [3], [4])):
        own = np.concatenate([np.arange(first[f], first[f] + shards.files[f][2]) for f in files])
        epochs = ids[:, stream].reshape(-1)[:140 // len(own) * len(own)].reshape(-1, len(own))
        assert (np.sort(epochs) == own).all()
        assert len({tuple(epoch) for epoch in epochs}) > len(epochs) / 2  # 5! orders may repeat


def test_an_image_goes_with_its_label_and_id(shards):
    for batch in train(shards, 10):
        np.testing.assert_array_equal(batch["label"], batch["id"])
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["id"])


def test_a_batch_may_be_larger_than_the_split():
    (batch,) = train(numbers(3), 1, batch_size=8)
    assert np.bincount(batch["id"]).tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


def test_augmentation_changes_with_the_epoch_the_example_and_the_place_in_the_list():
    image = np.random.default_rng(0).integers(0, 256, (1, 9, 9, 1), np.uint8)
    shift = TRANSFORMS.get("pad_crop")(padding=4)
    same = lookup(np.repeat(image, 16, 0))
    first, second = train(same, 2, batch_size=16, transforms=[shift])
    both = np.concatenate([first["image"], second["image"]])
    assert len({row.tobytes() for row in both}) > 16  # of 81 shifts
    draws = []

    def record(example, seed):
        return {**example, "image": tf.reshape(tf.bitcast(seed, tf.uint8), (1, 8, 1))}

    for transforms in ([record], [shift, record], [shift, shift, record]):
        draws.append(train(same, 1, transforms=transforms)[0]["image"].tobytes())
    assert len(set(draws)) == 3


@pytest.mark.daily(5)
@pytest.mark.parametrize("kind, count, hosts", [
    ("lookup", 1, 2), ("lookup", 64, 2), ("lookup", 65, 2), ("shards", 1, 2), ("shards", 65, 1),
    *(("lookup", count, 2) for count in (7, 8, 63, 1000)), ("shards", 1, 4), ("shards", 1000, 2)])
def test_evaluation_sees_every_example_once(kind, count, hosts, tmp_path):
    split = {"lookup": lambda: numbers(count),
             "shards": lambda: write_shards(tmp_path, (count // 3, count - count // 3))}[kind]()
    ids, share = [], 64 // hosts
    for first in range(0, 64, share):
        batches = list(eval_batches(split, [], batch_size=64, channels=1,
                                             rows=slice(first, first + share)))
        assert len(batches) == -(-count // 64)
        for batch in batches:
            assert {len(array) for array in batch.values()} == {share}
            padding = batch["mask"] == 0
            assert (batch["id"][padding] == -1).all() and not batch["image"][padding].any()
            ids += batch["id"][~padding].tolist()
    assert sorted(ids) == list(range(count))


def test_evaluation_is_in_order_and_gives_the_same_twice(split):
    first, second = (list(eval_batches(split, [], batch_size=16, rows=slice(0, 16),
                                                channels=1)) for _ in range(2))
    assert_same(first, second)
    assert np.concatenate([batch["id"] for batch in first]).tolist() == [*range(40)] + [-1] * 8


def test_a_part_of_a_split_counts_its_examples_from_zero(split):
    source = Source(name="part", classes=(), sizes={"train": 40}, open=lambda name: split)
    part = datasets.split(source, "train[25%:]")
    (batch,) = eval_batches(part, [], batch_size=30, rows=slice(0, 30), channels=1)
    np.testing.assert_array_equal(batch["id"], np.arange(30))
    whole = eval_batches(split, [], batch_size=40, rows=slice(0, 40), channels=1)
    np.testing.assert_array_equal(batch["image"], next(whole)["image"][10:])


# ---- faults ---------------------------------------------------------------------------------


JPEG = io.BytesIO()
Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(JPEG, "JPEG")
JPEG = JPEG.getvalue()
BAD_IMAGES = {"zero bytes": b"", "not an image": b"<html>", "truncated": JPEG[:-4],
              "damaged": png(3)[:50]}


@pytest.mark.daily(3)
@pytest.mark.parametrize("mode, what", [
    ("eval", "not an image"), ("train", "zero bytes"), ("eval", "truncated"), ("eval", "damaged"),
    ("eval", "zero bytes"), ("train", "not an image"), ("train", "truncated"),
    ("train", "damaged")])
def test_a_bad_image_is_named_after_the_good_batches(what, mode):
    images = [png(i) for i in range(12)]
    images[9] = BAD_IMAGES[what]
    transforms = [TRANSFORMS.bind(CROP if mode == "train" else dict(name="decode"), "t")()]
    arguments = dict(batch_size=4, rows=slice(0, 4), channels=3)
    if mode == "train":
        arguments |= dict(seed=1, start_step=0)
    batches = {"train": train_batches, "eval": eval_batches}[mode](
        lookup(images), transforms, **arguments)
    seen = []
    with pytest.raises(DataError, match=what) as error:
        for batch in batches:
            seen += batch["id"].tolist()
    assert (error.value.where, bool(error.value.fix)) == ("image 9", True)
    assert 9 not in seen and len(str(error.value).splitlines()) <= 5
    assert mode == "train" or seen == list(range(8))


def test_images_of_two_sizes_are_named():
    images = [png(i, (8, 8) if i != 2 else (8, 5)) for i in range(4)]
    with pytest.raises(DataError, match=r"\(8, 8, 3\) and \(8, 5, 3\)") as error:
        train(lookup(images), 1, batch_size=4, channels=3)
    assert "image 2" in error.value.where and "resize" in error.value.fix


@pytest.mark.daily(2)
@pytest.mark.parametrize("label", [-1, 3, 2**32])
def test_a_label_out_of_range_is_named_with_its_value(label):
    split = lookup(np.zeros((5, 2, 2, 1), np.uint8), [0, 1, 2, label, 0])
    with pytest.raises(DataError, match=f"label {label}: labels must be 0 to 2") as error:
        train(split, 2, batch_size=5, classes=3)
    assert error.value.where == "image 3"


def test_a_record_that_its_file_lacks_is_named(tmp_path):
    split = write_shards(tmp_path, (4, 6))
    path = split.files[1][0]
    split = Shards((split.files[0], (path, 0, 8)), split.records, split.parse)
    with pytest.raises(DataError, match="fewer records") as error:
        list(eval_batches(split, [], batch_size=4, rows=slice(0, 4), channels=1))
    assert error.value.where == f"{path}, record 6"
    with pytest.raises(DataError, match="fewer records"):
        train(split, 6, batch_size=4)


@pytest.mark.daily(1)
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_record_file_is_named(tmp_path, damage):
    split = write_shards(tmp_path, (4, 6))
    path = split.files[1][0]
    with open(path, "rb") as file:
        data = bytearray(file.read())
    data[50] ^= 1
    with open(path, "wb") as file:
        file.write(data if damage == "flipped" else data[:50])
    if damage == "gone":
        (tmp_path / "1.tfrecord").unlink()
    for batches in (eval_batches(split, [], batch_size=4, rows=slice(0, 4), channels=1),
                    iter([lambda: train(split, 6, batch_size=4)])):
        with pytest.raises(DataError) as error:
            for batch in batches:
                if callable(batch):
                    batch()
        assert error.value.where == {"flipped": f"{path}, record 2", "cut": f"{path}, record 2",
                                     "gone": path}[damage]


def test_an_image_smaller_than_the_crop_is_named():
    with pytest.raises(DataError, match="smaller than 9 x 9") as error:
        train(numbers(4), 1, transforms=[TRANSFORMS.get("center_crop")(size=9)])
    assert error.value.where.startswith("image ")


# ---- faults that a config lets go -----------------------------------------------------------


def skipping(split, **options):
    found = []
    return found, Faults(split, name="train", on_error="skip", report=found.append,
                         **({"max_bad_fraction": 1.0} | options))


def test_the_next_good_image_stands_in_for_a_bad_one_on_any_number_of_hosts():
    images = [png(i) for i in range(20)]
    images[9] = images[10] = b"<html>"
    images[19] = JPEG[:-4]
    decode = TRANSFORMS.get("decode")()

    def run(rows, start=0):
        found, faults = skipping(lookup(images))
        batches = train(lookup(images), 12 - start, transforms=[decode], channels=3, rows=rows,
                        start=start, faults=faults)
        return found, batches

    found, whole = run(slice(0, 8))
    assert {(row["id"], row["where"]) for row in found} == {(n, f"image {n}") for n in (9, 10, 19)}
    assert {row["reason"].split(":")[0].split(" (")[0] for row in found} == {
        "not an image in a supported format", "the image is damaged"}
    for batch in whole:
        stand_in = {9: 11, 10: 11, 19: 0}
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0],
                                      [stand_in.get(i, i) for i in batch["id"]])
        assert (batch["mask"] == 1).all()
    for rows, start in ((slice(0, 4), 0), (slice(4, 8), 7)):
        assert_same(run(rows, start)[1], [{name: array[rows] for name, array in batch.items()}
                                          for batch in whole[start:]])


def test_evaluation_that_lets_examples_go_does_not_count_them():
    images = [png(i) for i in range(10)]
    images[3] = b""
    found, faults = skipping(lookup(images))
    batches = list(eval_batches(lookup(images), [TRANSFORMS.get("decode")()], batch_size=4,
                                         rows=slice(0, 4), channels=3, faults=faults))
    seen = np.concatenate([batch["id"][batch["mask"] > 0] for batch in batches])
    assert seen.tolist() == [0, 1, 2, *range(4, 10)]
    assert [row["reason"] for row in found] == ["the image has zero bytes"]


def test_more_bad_images_than_allowed_end_the_run():
    images = [png(i) for i in range(30)]
    for i in (3, 4, 5, 6):
        images[i] = b""
    for options in (dict(max_bad=3), dict(max_bad_fraction=0.1)):
        found, faults = skipping(lookup(images), **options)
        with pytest.raises(DataError, match="4 examples of 30 cannot be read") as error:
            train(lookup(images), 8, transforms=[TRANSFORMS.get("decode")()], channels=3,
                  faults=faults)
        assert error.value.where.startswith("image ") and "max_bad" in error.value.fix
        assert len(found) == 3


@pytest.mark.daily(1)
@pytest.mark.parametrize("where", ["payload", "length", "cut", "boundary"])
def test_a_damaged_record_costs_itself_alone(tmp_path, where):
    split = write_shards(tmp_path, (12, 9))
    path = split.files[0][0]
    with open(path, "rb") as file:
        data = bytearray(file.read())
    size = 12 + 1 + 4  # of a record of one digit
    if where in ("payload", "length"):
        data[3 * size + {"payload": 12, "length": 1}[where]] ^= 4
    lost = {"payload": [3], "length": [3], "cut": [11], "boundary": [11]}[where]
    data = data[:{"cut": -3, "boundary": -(size + 1)}.get(where)]
    with open(path, "wb") as file:
        file.write(data)
    found, faults = skipping(split)
    batches = list(eval_batches(split, [], batch_size=7, rows=slice(0, 7), channels=1,
                                         faults=faults))
    assert [row["id"] for row in found] == lost
    assert found[0]["where"] == f"{path}, record {lost[0]}"
    kept = np.concatenate([batch["id"][batch["mask"] > 0] for batch in batches])
    assert kept.tolist() == [i for i in range(21) if i not in lost]
    for batch in batches:
        here = batch["mask"] > 0
        np.testing.assert_array_equal(batch["label"][here], batch["id"][here])
    whole = train(split, 9, batch_size=6, faults=skipping(split)[1])
    for batch in whole:
        np.testing.assert_array_equal(batch["label"], [{lost[0]: lost[0] + 1}.get(i, i)
                                                       for i in batch["id"]])
    assert_same(train(split, 4, batch_size=6, start=5, faults=skipping(split)[1]), whole[5:])


# ---- how often and in which order -----------------------------------------------------------


@pytest.mark.parametrize("split, repeats", [
    ("lookup", 2), ("shards", 3), *(pytest.param(*further, marks=pytest.mark.nightly)
                                    for further in (("lookup", 3), ("shards", 2)))],
    indirect=["split"])
def test_repeats_give_each_image_in_turns_that_differ(split, repeats):
    draws = []

    def note(example, seed):
        return {**example, "image": tf.reshape(tf.bitcast(seed, tf.uint8), (1, 8, 1))}

    whole = train(split, 20, repeats=repeats, transforms=[note], batch_size=12)
    for batch in whole:
        draws += [(int(i), image.tobytes()) for i, image in zip(batch["id"], batch["image"],
                                                                strict=True)]
    assert len(set(draws)) == len(draws)
    first = np.concatenate([batch["id"] for batch in whole])[:24]
    assert set(np.unique(first, return_counts=True)[1]) == {repeats}
    assert_same(train(split, 5, repeats=repeats, transforms=[note], batch_size=12, start=7),
                whole[7:12])


def test_copies_of_an_image_stand_in_different_parts_of_the_batch():
    (batch,) = train(numbers(40), 1, repeats=4, batch_size=16)
    parts = batch["id"].reshape(4, 4)
    assert all((part == parts[0]).all() for part in parts) and len(set(parts[0])) == 4
    assert streams.spread(slice(0, 1024), 1024, 3).tolist() == [
        row % 256 * 4 + row // 256 for row in range(1024)]  # 3 does not divide 1024: 4 parts


def test_an_empty_split_is_refused():
    with pytest.raises(DataError, match="no examples"):
        train(numbers(0), 1)
    with pytest.raises(DataError, match="no examples"):
        list(eval_batches(numbers(0), [], batch_size=4, rows=slice(0, 4), channels=1))


def test_a_transform_that_branches_on_a_tensor_in_python_is_told_how():
    def branching(row, seed):
        return {**row, "label": row["label"] + 1} if row["label"] > 3 else row

    def read(index):
        return {"image": tf.zeros((4, 4, 1), tf.uint8), "label": tf.cast(index, tf.int32)}

    with pytest.raises(ConfigError, match=r"tf\.cond"):
        next(train_batches(Lookup(8, read, str), [branching], batch_size=2, seed=0,
                                    start_step=0, rows=slice(0, 2), channels=1))
