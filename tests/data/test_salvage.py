"""Damaged TFRecord files: which records are lost, and that no other is."""

import numpy as np
import pytest
import tensorflow as tf

from imgcls_jax.data import salvage

RECORDS = [bytes([i]) * (5 + 37 * i) for i in range(12)]


@pytest.fixture
def path(tmp_path):
    name = str(tmp_path / "a.tfrecord")
    with tf.io.TFRecordWriter(name) as writer:
        for record in RECORDS:
            writer.write(record)
    return name


def read(path):
    return [record.numpy() for record in tf.data.TFRecordDataset(path)]


def test_the_checksum_is_crc32c():
    # RFC 3720, appendix B.4.
    rows = np.stack([np.zeros(32, np.uint8), np.full(32, 255, np.uint8), np.arange(32, dtype="u1")])
    assert salvage.crc32c(rows).tolist() == [0x8A9136AA, 0x62A8AB43, 0x46DD794E]


def test_a_whole_file_has_no_gaps(path):
    assert salvage.gaps(path) == []


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_costs_one_record(path, seed, tmp_path):
    data = bytearray(open(path, "rb").read())
    rng = np.random.default_rng(seed)
    starts = np.cumsum([0] + [16 + len(record) for record in RECORDS])
    bit = int(rng.integers(96, 8 * len(data)))  # the first header tells a TFRecord file
    data[bit // 8] ^= 1 << bit % 8
    lost = int(np.searchsorted(starts, bit // 8, "right") - 1)
    with open(path, "wb") as file:
        file.write(data)
    gaps = salvage.gaps(path)
    assert [number for number, _, _ in gaps] == [lost]
    copy = str(tmp_path / "copy")
    salvage.write_without(path, gaps, copy)
    assert read(copy) == [b"" if i == lost else record for i, record in enumerate(RECORDS)]


def test_several_damages_and_a_cut_end(path, tmp_path):
    data = bytearray(open(path, "rb").read())
    starts = np.cumsum([0] + [16 + len(record) for record in RECORDS])
    data[starts[2] + 13] ^= 1
    data[starts[5] + 3] ^= 1
    data[starts[6] + 3] ^= 1
    with open(path, "wb") as file:
        file.write(data[:-7])
    gaps = salvage.gaps(path)
    # Where two headers in a row are gone, nothing tells that they were two records.
    assert [begin for _, begin, _ in gaps] == [starts[2], starts[5], starts[11]]
    assert gaps[1][2] == starts[7]


def test_another_kind_of_file_is_none(tmp_path):
    other = tmp_path / "b.tfrecord"
    other.write_bytes(b"riegeli" * 20)
    assert salvage.gaps(str(other)) is None
