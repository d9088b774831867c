"""Which examples come in which order: datasets of (index or undecoded record, turn, id).

A Lookup: position p = step * B + row of an endless sequence is the example that order.Order gives
for it. Shards: V virtual streams own the files v, v + V, ...; row r of every batch comes from
stream r // (B / V), which reads its files in a new order each epoch and shuffles undecoded records
within a window. V depends on the files and B alone.
"""

import functools
import os

import numpy as np

from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.data.faults import Faults
from imgcls_jax.data.order import Order, generator
from imgcls_jax.types import Lookup, Shards

STREAMS = 128  # at most; a power of two, so that hosts share them equally
WINDOW = 8192  # undecoded records shuffled at a time, over all streams: 0.9 GB of ImageNet
ENDLESS = 2**62


def spread(rows: slice, batch_size: int, repeats: int) -> np.ndarray:
    """i64[rows]: which draw of a batch goes into each row.

    The copies of repeated augmentation are drawn one after the other but go into different parts
    of the batch, as torchvision's and DeiT's samplers give them to different devices: otherwise
    BatchNorm would see them together.
    """
    parts = next(n for n in range(repeats, batch_size + 1) if batch_size % n == 0) if (
        1 < repeats <= batch_size) else 1
    places = np.arange(rows.start, rows.stop)
    return places % (batch_size // parts) * parts + places // (batch_size // parts)


def ordered(split: Lookup, start_step: int, *, order: Order, batch_size: int,
             rows: slice, faults: Faults):
    tf = tensorflow()
    draws = spread(rows, batch_size, order.repeats)

    def indices(step):
        ids, turns = order.at(step * batch_size + draws)
        return faults.replace(ids), turns, ids

    # Python runs once per batch here, not once per example.
    steps = tf.data.Dataset.range(start_step, ENDLESS)
    return _by_index(steps.map(lambda step: tf.numpy_function(indices, [step], (tf.int64,) * 3)))


def _by_index(batches):
    """From batches of (indices, turns, ids)."""
    tf = tensorflow()
    return batches.map(lambda *all: [tf.ensure_shape(one, (None,)) for one in all]).unbatch()


def streamed(split: Shards, start_step: int, *, batch_size: int, seed: int, rows: slice,
              repeats: int, faults: Faults):
    tf = tensorflow()
    files = [number for number, (_, _, count) in enumerate(split.files) if count]
    counts = np.array([count for _, _, count in split.files])
    ids = _first_ids(split)
    streams = 1
    while 2 * streams <= min(len(files), STREAMS) and batch_size % (2 * streams) == 0:
        streams *= 2
    share = batch_size // streams

    def order(stream, epoch):
        """The files of a stream in the order of an epoch, and the seeds they are shuffled with."""
        own, random = files[stream::streams], generator(seed, epoch, stream)
        return random.permutation(own), random.integers(1, 2**62, len(own))

    def start(stream):
        """(files read, records read of the next file) before start_step."""
        own = files[stream::streams]
        epoch, rest = divmod(start_step * share // repeats, counts[own].sum())
        ends = counts[order(stream, epoch)[0]].cumsum()
        place = np.searchsorted(ends, rest, "right")
        return epoch * len(own) + place, rest - (ends[place - 1] if place else 0)

    def visit(stream, number):
        """What the stream reads as its n-th file, n counted over all epochs."""
        epoch, place = divmod(number, len(files[stream::streams]))
        own, shuffle_seeds = order(stream, epoch)
        path, begin, count = split.files[own[place]]
        first, skip = start(stream)
        return (os.fsencode(faults.path(path)), *np.array([begin, count, ids[own[place]], epoch,
                                              shuffle_seeds[place], skip * (number == first)]))

    def read(path, begin, count, first_id, epoch, shuffle_seed, skip):
        shuffled = _records(split, path, begin, count, first_id).shuffle(
            max(WINDOW // streams, 16), seed=shuffle_seed, reshuffle_each_iteration=False)
        return shuffled.skip(skip).map(lambda index, record: (record, epoch, index))

    def stream_of(stream, first):
        types = (tf.string,) + (tf.int64,) * 6
        visits = tf.data.Dataset.range(first, ENDLESS).map(
            lambda number: [tf.ensure_shape(value, ()) for value in
                            tf.numpy_function(visit, [stream, number], types)])
        records = visits.flat_map(read)
        return copied(records).skip(start_step * share % repeats) if repeats > 1 else records

    def copied(records):
        return records.flat_map(lambda record, epoch, index: tf.data.Dataset.range(
            epoch * repeats, (epoch + 1) * repeats).map(lambda turn: (record, turn, index)))

    own = range(rows.start // share, -(-rows.stop // share))
    starts = np.array([(stream, start(stream)[0]) for stream in own], np.int64)
    records = tf.data.Dataset.from_tensor_slices(tuple(starts.T)).interleave(
        stream_of, cycle_length=len(own), block_length=share, deterministic=True,
        num_parallel_calls=min(len(own), 16))
    records = _standing_in(records, faults)
    return _own(records, slice(rows.start - own.start * share, rows.stop - own.start * share),
                len(own) * share)


def in_order(split: Lookup | Shards, start_step: int, *, batch_size: int, rows: slice,
              faults: Faults, turn: int = 0):
    tf = tensorflow()
    if isinstance(split, Lookup):
        def indices(step):
            first = step * batch_size
            ids = np.arange(first + rows.start, min(first + rows.stop, split.size))
            return faults.replace(ids), np.full_like(ids, turn), ids

        steps = tf.data.Dataset.range(start_step, -(-max(split.size - rows.start, 0) // batch_size))
        return _by_index(steps.map(lambda step: tf.numpy_function(indices, [step],
                                                                  (tf.int64,) * 3)))

    paths = [os.fsencode(faults.path(path)) for path, _, _ in split.files]
    begins, counts = np.array([file[1:] for file in split.files], np.int64).T
    ids = _first_ids(split)
    skips = np.clip(start_step * batch_size - ids, 0, counts)
    files = tf.data.Dataset.from_tensor_slices(
        (paths, begins + skips, counts - skips, ids + skips)).filter(
        lambda path, begin, count, first_id: count > 0)
    records = files.flat_map(functools.partial(_records, split)).map(
        lambda index, record: (record, tf.fill(tf.shape(index), np.int64(turn)), index))
    return _own(_standing_in(records, faults), rows, batch_size)


def _records(split: Shards, path, begin, count, first_id):
    """(id, undecoded record) of a part of one file; missing records come as empty bytes.

    tf.data ends silently at the end of a file that was cut off between two records.
    """
    tf = tensorflow()
    records = split.records(path).concatenate(tf.data.Dataset.from_tensors(b"").repeat())
    return records.skip(begin).take(count).enumerate(first_id)


def _standing_in(records, faults: Faults):
    """The records, with those that cannot be read replaced."""
    if not faults.stand_ins:
        return records
    tf = tensorflow()
    numbers = tf.constant(list(faults.stand_ins), tf.int64)
    others = tf.stack([faults.raw(other) for other in faults.stand_ins.values()])

    def replaced(record, turn, index):
        here = tf.where(numbers == index)[:, 0]
        record = tf.cond(tf.size(here) > 0, lambda: others[here[0]], lambda: record)
        return record, turn, index

    return records.map(replaced)


def _own(records, rows: slice, span: int):
    """The records at `rows` of every `span`; the others are dropped before they are decoded."""
    if (rows.start, rows.stop) == (0, span):
        return records
    numbered = records.enumerate().filter(
        lambda place, record: (place % span >= rows.start) & (place % span < rows.stop))
    return numbered.map(lambda place, record: record)


def _first_ids(split: Shards) -> np.ndarray:
    """i64[files]: the number, in the split, of each file's first record."""
    return np.cumsum([0] + [count for _, _, count in split.files])[:-1]
