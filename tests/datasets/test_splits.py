"""Parts of splits: rounded as TFDS rounds them, and the same examples from both kinds."""

import dataclasses

import numpy as np
import pytest
import tensorflow_datasets
from tensorflow_datasets.core import splits as tfds_splits

from imgcls_jax import datasets
from imgcls_jax.data import feed
from imgcls_jax.data.feed import DataOptions
from imgcls_jax.errors import ConfigError
from imgcls_jax.types import Lookup, Shards, Source

COUNT = 1437


def source(opened, count=COUNT):
    return Source(name="numbers", classes=("a",), sizes={"train": count}, open=lambda name: opened)


def test_an_empty_part_is_told_in_plain_words():
    few = dataclasses.replace(LOOKUP, sizes={"train": 20, "val": 0})
    for name, said in (("val", "it has no examples"), ("val[:50%]", "'val' has no examples"),
                       ("train[:1%]", "it is 0 of 20 examples"),
                       ("train[9:3]", "it begins at example 9 of 20 and ends before 3")):
        with pytest.raises(ConfigError) as error:
            datasets.size(few, name)
        assert error.value.what == f"{name!r} is empty: {said}"
        assert ("config.data.only" in error.value.fix) == ("val" in name)


LOOKUP = source(Lookup(COUNT, lambda index: index, lambda index: f"number {index}"))
SHARDS = source(Shards(tuple((str(i), 0, 100 if i < 14 else 37) for i in range(15)), None, None))


@pytest.mark.parametrize("name", [
    "train", "train[:99%]", "train[99%:]", "train[:1000]", "train[-10%:]", "train[:-100]",
    "train[33%:67%]", "train[5:6]", "train[1%:2%]"])
def test_a_part_holds_the_examples_that_tfds_takes(name):
    info = tfds_splits.SplitInfo(name="train", shard_lengths=[COUNT], num_bytes=0)
    instruction = tensorflow_datasets.core.ReadInstruction.from_spec(name)
    (expected,) = instruction.to_absolute({"train": info})
    first, last = expected.from_ or 0, COUNT if expected.to is None else expected.to
    assert datasets.size(LOOKUP, name) == last - first
    part = datasets.split(LOOKUP, name)
    assert [part.read(0), part.read(part.size - 1)] == [first, last - 1]
    assert part.where(0) == f"number {first}"


@pytest.mark.parametrize("name", ["train", "train[:250]", "train[250:1250]", "train[110:120]"])
def test_a_part_of_shards_is_the_same_run_of_records(name):
    everything = [(path, first + i) for path, first, count in SHARDS.open("").files
                  for i in range(count)]
    lookup, part = datasets.split(LOOKUP, name), datasets.split(SHARDS, name)
    records = [(path, first + i) for path, first, count in part.files for i in range(count)]
    first = lookup.read(0)
    assert records == everything[first:first + lookup.size]
    assert part.where(part.size - 1) == "{}, record {}".format(*records[-1])


def test_parts_that_share_a_border_are_a_partition():
    for percent in range(101):
        sizes = [datasets.size(LOOKUP, name) if edge else 0 for name, edge in
                 ((f"train[:{percent}%]", percent > 0), (f"train[{percent}%:]", percent < 100))]
        assert np.sum(sizes) == COUNT


@pytest.mark.parametrize("name", ["trian", "train[", "train[:1438]", "train[10:10]",
                                  "train[90%:10%]", "train[:101%]", "train[0:10:2]"])
def test_a_part_that_is_none_is_refused(name):
    with pytest.raises(ConfigError) as error:
        datasets.size(LOOKUP, name)
    assert error.value.fix


def by_class(classes: int, each: int) -> Source:
    """A split that lies in order of its classes, as a folder does."""
    labels = np.repeat(np.arange(classes, dtype=np.int32), each)
    opened = Lookup(len(labels), lambda index: {"image": index, "label": index},
                    lambda index: f"{labels[index]}/{index}", lambda: labels)
    return Source(name="folder", classes=tuple(map(str, range(classes))), mixed=True,
                  sizes={"train": len(labels)}, open=lambda name: opened)


def places(source: Source, name: str) -> list[str]:
    part = datasets.split(source, name)
    return [part.where(index) for index in range(part.size)]


def test_parts_of_a_folder_hold_all_classes_and_are_a_partition():
    source = by_class(10, 100)
    for name in ("train[:50%]", "train[50%:]", "train[:10%]"):
        assert set(datasets.labels(source, name, "")) == set(range(10))
    parts = [place for a, b in ((0, 100), (100, 700), (700, 1000))
             for place in places(source, f"train[{a}:{b}]")]
    assert sorted(parts) == sorted(places(source, "train"))
    # A larger part holds the smaller one: curves over the size of the data are of nested sets.
    assert set(places(source, "train[:10%]")) < set(places(source, "train[:20%]"))


def test_the_permutation_is_fixed():
    """The order of raw draws of Philox4x64 with key 0, which NumPy keeps for ever."""
    assert datasets.shuffled(10).tolist() == np.argsort(
        np.random.Philox(key=0).random_raw(10)).tolist() == [
        0, 2, 9, 1, 8, 5, 4, 3, 6, 7]


def test_a_part_by_the_order_of_the_list_is_a_run_of_it():
    options = DataOptions(parts="listed")
    listed = feed.select(by_class(4, 5), options, 0)
    assert places(listed, "train[:5]") == places(listed, "train")[:5]


def test_a_part_that_lacks_classes_is_told():
    source = dataclasses.replace(by_class(4, 5), mixed=False)
    with pytest.warns(UserWarning, match=r"train\[:50%\] has no example of 2 of 4 classes: "
                                         r"\['2', '3'\]"):
        feed.Feed(source, 0, DataOptions()).split("train[:50%]")
