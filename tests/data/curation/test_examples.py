"""Every example by itself: in order, the bad ones in their places, and nothing kept of them."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from imgcls_jax.data.curation import examples
from imgcls_jax.errors import DataError
from imgcls_jax.types import Lookup, Shards


def numbers(size: int, bad=()) -> Lookup:
    """Example i is a pixel of the number i, with the label i mod 3."""
    import tensorflow as tf

    def read(index):
        tf.debugging.Assert(tf.reduce_all(index != tf.constant([-1, *bad], tf.int64)),
                            ["no such thing"])
        return {"image": tf.reshape(tf.bitcast(index, tf.uint8), (2, 4, 1)),
                "label": tf.cast(index % 3, tf.int32)}

    return Lookup(size, read, lambda index: f"number {index}")


@pytest.mark.parametrize("threads", [1, 5])
def test_they_come_in_order_with_the_bad_in_their_places(threads):
    def work(index, image, label):
        time.sleep(0.001 * (index % 4))  # the later ones are often done first
        if index == 21:
            raise DataError("not this one")
        return int.from_bytes(image.tobytes(), "little"), int(label)

    found = list(examples.each(numbers(40, bad=(3, 17)), work, threads=threads))
    assert [index for index, _ in found] == list(range(40))
    for index, value in found:
        if index in (3, 17, 21):
            assert isinstance(value, DataError) and value.where == f"number {index}"
            assert value.what in ("not this one", "assertion failed: [no such thing]")
        else:
            assert value == (index, index % 3)


def test_chosen_ones_come_in_the_order_asked_for():
    found = examples.each(numbers(10), lambda index, image, label: index, np.array([7, 2, 9]),
                          threads=2)
    assert list(found) == [(7, 7), (2, 2), (9, 9)]


def test_a_part_of_a_record_file_is_read_alone(tmp_path):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(tmp_path / "records")) as out:
        for i in range(10):
            out.write(bytes([i]))
    split = Shards(((str(tmp_path / "records"), 3, 4), (str(tmp_path / "records"), 0, 2)),
                   lambda path: tf.data.TFRecordDataset(path),
                   lambda record: {"image": record, "label": tf.constant(0)})
    found = list(examples.each(split, lambda index, image, label: image[0], threads=2))
    assert found[:4] == [(0, 3), (1, 4), (2, 5), (3, 6)]
    assert found[4:6] == [(4, 0), (5, 1)]
    ((where, fault),) = found[6:]  # the second says that the file has two
    assert where is None and "10 whole records, its metadata says 2" in fault.what


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for its memory")
def test_nothing_is_kept_of_what_was_seen():
    """TensorFlow keeps what it makes of a Python number: 600 bytes an example."""
    # In a process of its own: what other tests have left would be given back or taken meanwhile.
    made = subprocess.run([sys.executable, "-c", """
from pathlib import Path
from imgcls_jax.data.curation import examples
from tests.data.curation.test_examples import numbers

after = {}
for index, _ in examples.each(numbers(30_001), lambda *example: None, threads=2):
    if index in (5_000, 30_000):
        after[index] = int(Path("/proc/self/statm").read_text().split()[1])
print((after[30_000] - after[5_000]) * 4096)
"""], stdout=subprocess.PIPE, text=True, check=True, timeout=200, cwd=Path(__file__).parents[3])
    assert int(made.stdout) < 9e6  # 15e6 otherwise


def test_what_is_wrong_is_told_in_one_line():
    import tensorflow as tf

    def python(index):
        raise DataError("the record is gone", where="there")

    reads = {"No such file or directory": lambda index: tf.io.read_file("/nowhere/x.jpg"),
             "the record is gone": lambda index: tf.ensure_shape(
                 tf.numpy_function(python, [index], tf.string), ())}
    for says, read in reads.items():
        split = Lookup(1, lambda index, read=read: {"image": read(index), "label": tf.constant(0)},
                       lambda index: "it")
        ((_, fault),) = examples.each(split, lambda *example: None, threads=1)
        assert fault.what.endswith(says) and "\n" not in fault.what and fault.where == "it"


def test_a_split_that_cannot_be_read_at_all_is_told_once():
    def read(index):
        raise FileNotFoundError(2, "No such file or directory", "/nowhere/data")

    with pytest.raises(DataError, match="/nowhere/data"):
        list(examples.each(Lookup(3, read, str), lambda *example: None, threads=1))
