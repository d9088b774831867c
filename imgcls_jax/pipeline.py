"""(split, transforms, seed, start step) -> batches on the host, a pure function of (seed, step).

No state is kept between steps: a resumed run asks for the step it stands at. The global batch is
the same for any number of hosts, threads and devices; each host reads only its own rows of it.

Training from a Lookup: position p = step * B + row of an endless sequence is the example that
sampling.Order has there. Training from Shards: V virtual streams own the files v, v + V, ...; row r
of every batch comes from stream r // (B / V), which passes over its files in a new order each epoch
and shuffles undecoded records within a window. V depends on the files and B alone.
"""

import atexit
import contextlib
import functools
import os
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from imgcls_jax import input_faults, sampling
from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.input_faults import Faults
from imgcls_jax.transforms import _decode
from imgcls_jax.types import Batch, Lookup, Shards

STREAMS = 128  # at most: a power of two, so that it divides over hosts
WINDOW = 8192  # undecoded records shuffled at a time, over all streams: 0.9 GB of ImageNet
ENDLESS = 2**62


def train_batches(split: Lookup | Shards, transforms: Sequence[Callable], *, batch_size: int,
                  seed: int, start_step: int, rows: slice, channels: int,
                  classes: int | None = None, order: sampling.Order | None = None,
                  repeats: int = 1, faults: Faults | None = None) -> Iterator[Batch]:
    """Batches from `start_step` on, without end, each cut to this process's `rows`, as numpy.

    classes: labels are checked to lie below. order: of a Lookup, a permutation by default.
    repeats: of Shards, each record comes so many times in a row, augmented anew. Raises DataError,
    naming the example, when one cannot be read that `faults` does not let go.
    """
    faults = faults or Faults(split)
    arguments = dict(batch_size=batch_size, rows=rows, faults=faults)
    if isinstance(split, Lookup):
        order = order or sampling.Order(split.size, seed, repeats=repeats)
        raw = functools.partial(_ordered, split, order=order, **arguments)
    else:
        raw = functools.partial(_streamed, split, seed=seed, repeats=repeats, **arguments)
    example = _example(split, transforms, seed, channels, classes)
    return _closed_at_exit(_batches(raw, example, start_step, rows.stop - rows.start, classes,
                                    faults))


def eval_batches(split: Lookup | Shards, transforms: Sequence[Callable], *, batch_size: int,
                 rows: slice, channels: int, classes: int | None = None, seed: int = 0,
                 faults: Faults | None = None) -> Iterator[Batch]:
    """Every example exactly once, in order; as many batches on every host.

    seed: of transforms that are random. The last batch is filled up with zero images of mask 0 and
    id -1. An example that `faults` lets go has mask 0 too. Raises as `train_batches`.
    """
    faults = faults or Faults(split)
    raw = functools.partial(_in_order, split, batch_size=batch_size, faults=faults)
    example = _example(split, transforms, seed, channels, classes)
    count = rows.stop - rows.start
    batches = _closed_at_exit(_batches(functools.partial(raw, rows=rows), example, 0, count,
                                       classes, faults))
    batch = None
    for first in range(rows.start, split.size + rows.start, batch_size):
        if first < split.size:
            batch = next(batches)
            good = ~np.isin(batch["id"], list(faults.stand_ins))
            batch["mask"] = batch["mask"] * good
        else:  # none of the last rows is ours, but their shape must be known
            if batch is None:
                any_row = functools.partial(raw, rows=slice(0, 1))
                batch = next(_batches(any_row, example, 0, 1, classes, faults))
            batch = {name: array[:0] for name, array in batch.items()}
        yield _pad(batch, count)


def _pad(batch: Batch, count: int) -> Batch:
    missing = count - len(batch["id"])
    if not missing:
        return batch
    fill = {"image": 0, "label": 0, "mask": 0, "id": -1}
    return {name: np.pad(array, ((0, missing),) + ((0, 0),) * (array.ndim - 1),
                         constant_values=fill[name]) for name, array in batch.items()}


# ---- which examples, in which order: datasets of (index or undecoded record, turn, id) ------


def spread(rows: slice, batch_size: int, repeats: int) -> np.ndarray:
    """i64[rows]: the draw of a batch that stands in each row.

    The copies of repeated augmentation are drawn one behind the other and stand in different parts
    of the batch, as torchvision's and DeiT's samplers give them to different devices: BatchNorm
    would see them together.
    """
    parts = next(n for n in range(repeats, batch_size + 1) if batch_size % n == 0) if (
        1 < repeats <= batch_size) else 1
    places = np.arange(rows.start, rows.stop)
    return places % (batch_size // parts) * parts + places // (batch_size // parts)


def _ordered(split: Lookup, start_step: int, *, order: sampling.Order, batch_size: int,
             rows: slice, faults: Faults):
    tf = tensorflow()
    draws = spread(rows, batch_size, order.repeats)

    def indices(step):
        ids, turns = order.at(step * batch_size + draws)
        return faults.replace(ids), turns, ids

    # Python runs once a batch here, not once an example.
    steps = tf.data.Dataset.range(start_step, ENDLESS)
    return _by_index(steps.map(lambda step: tf.numpy_function(indices, [step], (tf.int64,) * 3)))


def _by_index(batches):
    """From batches of (indices, turns, ids)."""
    tf = tensorflow()
    return batches.map(lambda *all: [tf.ensure_shape(one, (None,)) for one in all]).unbatch()


def _streamed(split: Shards, start_step: int, *, batch_size: int, seed: int, rows: slice,
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
        """The files of a stream as one epoch reads them, and the seeds they are shuffled with."""
        own, generator = files[stream::streams], sampling.generator(seed, epoch, stream)
        return generator.permutation(own), generator.integers(1, 2**62, len(own))

    def start(stream):
        """(number of files read, records read of the next file) before start_step."""
        own = files[stream::streams]
        epoch, rest = divmod(start_step * share // repeats, counts[own].sum())
        ends = counts[order(stream, epoch)[0]].cumsum()
        place = np.searchsorted(ends, rest, "right")
        return epoch * len(own) + place, rest - (ends[place - 1] if place else 0)

    def visit(stream, number):
        """What the stream reads as its file of this number, counted over all epochs."""
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


def _in_order(split: Lookup | Shards, start_step: int, *, batch_size: int, rows: slice,
              faults: Faults):
    tf = tensorflow()
    if isinstance(split, Lookup):
        def indices(step):
            first = step * batch_size
            ids = np.arange(first + rows.start, min(first + rows.stop, split.size))
            return faults.replace(ids), np.zeros_like(ids), ids

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
        lambda index, record: (record, tf.zeros_like(index), index))
    return _own(_standing_in(records, faults), rows, batch_size)


def _records(split: Shards, path, begin, count, first_id):
    """(id, undecoded record) of a part of one file; what the file lacks comes as empty bytes.

    tf.data ends without a word at the end of a file that was cut off between two records.
    """
    tf = tensorflow()
    records = split.records(path).concatenate(tf.data.Dataset.from_tensors(b"").repeat())
    return records.skip(begin).take(count).enumerate(first_id)


def _standing_in(records, faults: Faults):
    """Those of the examples that cannot be read replaced."""
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
    """Of every `span` records those at `rows`: the others are dropped before they are decoded."""
    if (rows.start, rows.stop) == (0, span):
        return records
    numbered = records.enumerate().filter(
        lambda place, record: (place % span >= rows.start) & (place % span < rows.stop))
    return numbered.map(lambda place, record: record)


def _first_ids(split: Shards) -> np.ndarray:
    """i64[files]: number in the split of the first record of each file."""
    return np.cumsum([0] + [count for _, _, count in split.files])[:-1]


# ---- from an index or a record to a batch ---------------------------------------------------


def _example(split: Lookup | Shards, transforms: Sequence[Callable], seed: int, channels: int,
             classes: int | None) -> Callable:
    """(index or record, turn, id) -> one row of a batch, as tensors."""
    if not split.size:
        raise DataError("the split has no examples", fix="choose another split or a larger part")
    tf = tensorflow()
    # The upper half of a key: 32 bits of the run's seed. Below it there is room for 2^32 turns.
    base = int(np.random.SeedSequence(seed).generate_state(1)[0]) << 31
    load = split.read if isinstance(split, Lookup) else split.parse

    def example(raw, turn, index):
        row = {**load(raw), "channels": channels}
        if row["label"].dtype.is_integer:
            row["label"] = tf.cast(row["label"], tf.int64)
            if classes is not None and tf.executing_eagerly():  # else of a batch at once
                tf.debugging.assert_equal(_in_range(row["label"], classes), True,
                                          f"{input_faults.LABELS} 0 to {classes - 1}")
        elif classes is not None and tf.executing_eagerly():
            tf.debugging.assert_equal(_are_shares(row["label"], classes), True,
                                      f"{input_faults.LABELS} {classes} numbers of 0 to 1")
        # One draw gives the seeds of all transforms.
        key = tf.stack([base + tf.cast(turn, tf.int64), tf.cast(index, tf.int64)])
        seeds = tf.random.stateless_uniform((len(transforms), 2), key, None, None, tf.int32)
        for place, transform in enumerate(transforms):
            try:
                row = transform(row, seeds[place])
            except tf.errors.OperatorNotAllowedInGraphError as error:
                raise ConfigError("a transform asks in Python what a tensor holds",
                                  where=f"transform {place}, {transform.__module__}",
                                  fix="write it with tf.cond, tf.where or tf.while_loop; "
                                      "--debug shows the line") from error
        return {"image": _decode.pixels(row), "label": row["label"], "id": index}

    return example


def _in_range(labels, classes: int | None):
    return True if classes is None else (labels >= 0) & (labels < classes)


def _are_shares(labels, classes: int | None) -> bool:
    """Whether labels f[..., K] say of every class how far it is true; NaN does not."""
    labels = np.asarray(labels)
    return classes is None or (labels.shape[-1:] == (classes,)
                               and bool(((labels >= 0) & (labels <= 1)).all()))


def _batches(raw: Callable, example: Callable, step: int, count: int, classes: int | None,
             faults: Faults) -> Iterator[Batch]:
    """raw: start step -> dataset of what `example` takes."""
    tf = tensorflow()
    threads = _threads()
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = threads
    # The autotuner delays the end of a finite iterator until it next wakes up, which may double
    # an evaluation; with every number given there is nothing for it to tune.
    options.autotune.enabled = False
    failure = tf.errors.OpError  # a name of our own: this may be closed when modules are gone

    # Rewriting Python's `if` and `for` to TensorFlow's takes four times as long as all the rest.
    @tf.autograph.experimental.do_not_convert
    def dataset():
        rows = raw(step).map(example, num_parallel_calls=threads)
        return rows.batch(count).prefetch(2).with_options(options)

    def rows_of(step):
        return raw(step).take(count)

    while True:
        try:
            for batch in dataset().as_numpy_iterator():
                label = batch["label"]
                if label.dtype == np.int64:
                    if not np.all(_in_range(label, classes)):
                        raise failure(None, None, f"{input_faults.LABELS} 0 to {classes - 1}", 3)
                    label = label.astype(np.int32)
                elif not _are_shares(label, classes):
                    raise failure(None, None,
                                  f"{input_faults.LABELS} {classes} numbers of 0 to 1", 3)
                yield {**batch, "label": label, "mask": np.ones(len(label), np.float32)}
                step += 1
            return
        except failure as error:
            # Where a config lets examples go, the batch that failed is begun anew without them.
            faults.meet(functools.partial(rows_of, step), example, error)


_open: weakref.WeakSet = weakref.WeakSet()


def _closed_at_exit(batches: Iterator[Batch]) -> Iterator[Batch]:
    """A thread of tf.data that runs Python, as where archives are read, would hang the exit."""
    if not _open:  # the last to be registered is the first to run: before TensorFlow's own
        atexit.unregister(_close_all)
        atexit.register(_close_all)
    _open.add(batches)
    return batches


def _close_all():
    for batches in list(_open):
        with contextlib.suppress(ValueError):  # it is being asked for a batch in another thread
            batches.close()


def _threads() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux: what this process may use
    return len(affinity(0)) if affinity else os.cpu_count()


@functools.cache
def tensorflow():
    """TensorFlow, imported when first needed and kept off the accelerators, which are JAX's."""
    # "1" is what JAX sets when it is imported, and no wish of anybody's. What TensorFlow logs of a
    # damaged image, tracebacks included, is an exception as well, which input_faults puts in words.
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # Serves convolutions, which no input has, and tells of itself on every start.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    with _without_keras():
        import tensorflow as tf

    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    tf.__path__[:] = filter(None, tf.__path__)  # the place of the Keras that was not found
    return tf


@contextlib.contextmanager
def _without_keras():
    """TensorFlow imports Keras, a fourth of its time, unless asked for an older one, tf_keras.

    Where that is not installed nothing is imported; tf.keras is Keras all the same, when first
    used.
    """
    name = "TF_USE_LEGACY_KERAS"
    if name in os.environ or "tensorflow" in sys.modules:
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]
