"""Which examples a split has, and what has changed of them."""

import numpy as np
import pytest

from imgcls_jax import datasets
from imgcls_jax.data import listing
from imgcls_jax.data.listing import Listing
from imgcls_jax.datasets import DATASETS
from imgcls_jax.types import Shards
from tests.datasets.test_folder import write

CLASSES = ("ant", "bee", "cat")


def of(*rows):
    return Listing(len(rows), [name.encode() for name, _ in rows],
                   np.array([label for _, label in rows], np.int32))


BEFORE = {"train": of(("a/0", 0), ("a/1", 0), ("b/0", 1)), "val": of(("a/2", 0), ("b/1", 1))}
CHANGED = {
    "nothing": (BEFORE, []),
    "added": ({"train": of(("a/0", 0), ("a/1", 0), ("a/9", 0), ("b/0", 1))},
              ["train: 1 example added (a/9)"]),
    "removed": ({"train": of(("b/0", 1))}, ["train: 2 examples removed (a/0, a/1)"]),
    "relabelled": ({"train": of(("a/0", 0), ("a/1", 2), ("b/0", 1))},
                   ["train: 1 example with another label (a/1: ant -> cat)"]),
    "moved": ({"train": of(("a/0", 0), ("a/1", 0), ("a/2", 0), ("b/0", 1)), "val": of(("b/1", 1))},
              ["train: 1 example added (a/2)", "val: 1 example removed (a/2)",
               "1 example of val moved to train (a/2)"]),
    "ordered": ({"train": of(("b/0", 1), ("a/0", 0), ("a/1", 0))},
                ["train: the same examples in another order, or another number of times"]),
    "a new split": ({"test": of(("a/0", 0))}, []),
}


@pytest.mark.parametrize("what", CHANGED)
def test_what_has_changed_is_said_with_numbers_and_names(tmp_path, what):
    listing.write(tmp_path / "examples", BEFORE)
    now, lines = CHANGED[what]
    facts = {name: found.facts() for name, found in BEFORE.items()}
    assert listing.changes(facts, now, tmp_path / "examples", CLASSES) == lines


def test_without_the_names_of_before_the_numbers_are_said(tmp_path):
    facts = {name: found.facts() for name, found in BEFORE.items()}
    now = {"train": of(("a/0", 0)), "val": of(("a/2", 0), ("b/1", 2))}
    assert listing.changes(facts, now, tmp_path, CLASSES) == [
        "train: 1 example, before 3", "val: as many examples as before, but others"]
    listing.write(tmp_path, BEFORE)
    for file in tmp_path.glob("train-*.npz"):
        file.write_bytes(b"PK\3\4 cut off")
    assert listing.changes(facts, now, tmp_path, CLASSES)[0] == "train: 1 example, before 3"


@pytest.mark.parametrize("found", [
    BEFORE["train"], Listing(3), Listing(0, [], np.zeros(0, np.int32)),
    Listing(2, [b"\xff.jpg", "花.jpg".encode()], [b"0|2", b""]), Listing(1, [b""], [b""])])
def test_what_is_written_is_read(tmp_path, found):
    listing.write(tmp_path, {"train[:99%]": found})
    again = listing.read(tmp_path, "train[:99%]", found.digest)
    assert again.digest == found.digest and again.size == found.size
    assert list(again.names or ()) == list(found.names or ())


def test_digests_tell_examples_labels_and_their_order_apart():
    rows = [("a", 0), ("b", 1), ("ab", 0)]
    different = [rows, rows[:2], rows[::-1], [("a", 0), ("b", 0), ("ab", 0)],
                 [("a", 0), ("ba", 1), ("b", 0)], []]
    assert len({of(*each).digest for each in different}) == len(different)
    # The known value: a checkpoint of today must be recognised by every later version.
    assert of(*rows).digest == "9590be10ce49297840905ed82b5bdd73"


def test_the_same_data_in_another_place_is_the_same(tmp_path):
    found = []
    for place in ("here", "there"):
        for name in ("ant/0.png", "ant/1.png", "bee/0.png", "bee/1.png"):
            write(f"{tmp_path / place}/{name}")
        table = tmp_path / place / "list.csv"
        table.write_text("path,labels,split\nant/0.png,ant|x,train\nbee/0.png,bee,train\n"
                         "bee/1.png,,val\n")
        found.append([listing.listing(datasets.split(source, "train")).digest for source in (
            DATASETS.get("folder")(dir=str(tmp_path / place), val_fraction=0),
            DATASETS.get("manifest")(path=str(table)))])
    assert found[0] == found[1] and found[0][0] != found[0][1]


def test_parts_and_chosen_examples_are_listed_as_they_are_read(tmp_path):
    table = tmp_path / "list.csv"
    table.write_text("path,labels,split\n" + "".join(
        f"{i}.png,{'x|y' if i % 2 else 'z'},train\n" for i in range(10)))
    source = DATASETS.get("manifest")(path=str(table))
    part = datasets.split(source, "train[:4]")
    names = [part.where(index).rpartition("/")[2].encode() for index in range(4)]
    found = listing.listing(part)
    assert list(found.names) == names
    assert found.labels == [b"0|1" if int(name[:1]) % 2 else b"2" for name in names]


def test_files_of_records_are_listed_by_their_places_and_content(tmp_path):
    (tmp_path / "a.tfrecord").write_bytes(bytes(7))
    files = ((str(tmp_path / "a.tfrecord"), 0, 10), ("/data/b.tfrecord", 5, 5))
    split = Shards(files, None, None, {"/data/b.tfrecord": "0123456789abcdef" * 4})
    assert listing.listing(split) == Listing(15, [
        b"a.tfrecord (7 bytes), records 0 to 10",
        b"b.tfrecord (0123456789abcdef), records 5 to 10"])


def test_listings_that_a_checkpoint_refers_to_stay_until_the_next(tmp_path):
    facts = {name: found.facts() for name, found in BEFORE.items()}
    now = {"train": of(("a/0", 0))}
    listing.write(tmp_path, BEFORE)
    listing.write(tmp_path, now, keep=facts)  # killed before it has saved: begun again from before
    assert "train: 2 examples removed (a/1, b/0)" in listing.changes(facts, now, tmp_path, CLASSES)
    listing.write(tmp_path, now, keep={"train": now["train"].facts()})
    assert listing.read(tmp_path, "val", facts["val"]["digest"]) is None


def test_labels_are_those_after_the_choice_of_classes(tmp_path):
    for name in ("b/0.png", "b/1.png", "c/0.png", "d/0.png"):
        write(f"{tmp_path}/{name}")

    def found():
        source = DATASETS.get("folder")(dir=str(tmp_path), val_fraction=0)
        return listing.listing(datasets.split(datasets.only(source, ("b", "d")), "train"))

    before = found()
    assert before.labels.tolist() == [0, 0, 1]
    write(f"{tmp_path}/a/0.png")  # of no class that is trained on
    assert found().digest == before.digest
