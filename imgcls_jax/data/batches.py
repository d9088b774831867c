"""(split, transforms, seed, start step) -> batches on the host, a pure function of (seed, step).

No state is kept between steps: a resumed run asks for the step it continues from. The global batch
is the same for any number of hosts, threads and devices; each host reads only its own rows of it.
Which examples those are is decided in streams.py.
"""

import atexit
import contextlib
import functools
import os
import weakref
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from imgcls_jax.data import decoding, streams
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.data.faults import LABELS, Faults
from imgcls_jax.data.order import Order
from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.types import Batch, Lookup, Shards


def train_batches(split: Lookup | Shards, transforms: Sequence[Callable], *, batch_size: int,
                  seed: int, start_step: int, rows: slice, channels: int,
                  classes: int | None = None, order: Order | None = None,
                  repeats: int = 1, faults: Faults | None = None) -> Iterator[Batch]:
    """Batches from `start_step` on, without end, each cut to this process's `rows`, as numpy.

    classes: labels are checked to be below it. order: for a Lookup, a permutation by default.
    repeats: for Shards, each record comes this many times in a row, each augmented differently.
    Raises DataError, naming the example, when one cannot be read that `faults` does not skip.
    """
    faults = faults or Faults(split)
    raw = _in_training(split, seed, order, repeats, batch_size=batch_size, rows=rows, faults=faults)
    example = _example(split, transforms, seed, channels, classes)
    return _closed_at_exit(_batches(raw, example, start_step, rows.stop - rows.start, classes,
                                    faults))


def train_order(split: Lookup | Shards, *, batch_size: int, seed: int, start_step: int, rows: slice,
                order: Order | None = None, repeats: int = 1, faults: Faults) -> Iterator[Batch]:
    """Of the batches of `train_batches` only {"turn": i64[rows], "id": i64[rows]}: nothing is
    decoded. turn: as of order.Order, what an augmentation is drawn by."""
    raw = _in_training(split, seed, order, repeats, batch_size=batch_size, rows=rows, faults=faults)
    numbers = raw(start_step).map(lambda raw, turn, index: {"turn": turn, "id": index})
    batches = numbers.batch(rows.stop - rows.start).prefetch(2).as_numpy_iterator()
    return _closed_at_exit(batch for batch in batches)


def _in_training(split: Lookup | Shards, seed: int, order: Order | None, repeats: int,
                 **arguments) -> Callable:
    """start step -> dataset of (index or undecoded record, turn, id)."""
    if isinstance(split, Lookup):
        order = order or Order(split.size, seed, repeats=repeats)
        return functools.partial(streams.ordered, split, order=order, **arguments)
    return functools.partial(streams.streamed, split, seed=seed, repeats=repeats, **arguments)


def eval_batches(split: Lookup | Shards, transforms: Sequence[Callable], *, batch_size: int,
                 rows: slice, channels: int, classes: int | None = None, seed: int = 0,
                 turn: int = 0, faults: Faults | None = None) -> Iterator[Batch]:
    """Every example exactly once, in order; as many batches on every host.

    seed, turn: for transforms that are random. The last batch is filled up with zero images of mask
    0 and id -1. An example that `faults` skips has mask 0 too. Raises the same as `train_batches`.
    """
    faults = faults or Faults(split)
    raw = functools.partial(streams.in_order, split, batch_size=batch_size, faults=faults,
                            turn=turn)
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
        else:  # none of the last rows is this host's, but their shape must be known
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
            if classes is not None and tf.executing_eagerly():  # else checked for a whole batch
                tf.debugging.assert_equal(_in_range(row["label"], classes), True,
                                          f"{LABELS} 0 to {classes - 1}")
        elif classes is not None and tf.executing_eagerly():
            tf.debugging.assert_equal(_are_shares(row["label"], classes), True,
                                      f"{LABELS} {classes} numbers of 0 to 1")
        # One draw gives the seeds of all transforms.
        key = tf.stack([base + tf.cast(turn, tf.int64), tf.cast(index, tf.int64)])
        seeds = tf.random.stateless_uniform((len(transforms), 2), key, None, None, tf.int32)
        for place, transform in enumerate(transforms):
            try:
                row = transform(row, seeds[place])
            except tf.errors.OperatorNotAllowedInGraphError as error:
                raise ConfigError("a transform uses a tensor's value in a Python `if` or loop",
                                  where=f"transform {place}, {transform.__module__}",
                                  fix="write it with tf.cond, tf.where or tf.while_loop; "
                                      "--debug shows the line") from error
        return {"image": decoding.pixels(row), "label": row["label"], "id": index}

    return example


def _in_range(labels, classes: int | None):
    return True if classes is None else (labels >= 0) & (labels < classes)


def _are_shares(labels, classes: int | None) -> bool:
    """Whether labels f[..., K] are shares of 0 to 1 for every class; NaN is not."""
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

    # Without AutoGraph: it would take four times as long as all the rest.
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
                        raise failure(None, None, f"{LABELS} 0 to {classes - 1}", 3)
                    label = label.astype(np.int32)
                elif not _are_shares(label, classes):
                    raise failure(None, None,
                                  f"{LABELS} {classes} numbers of 0 to 1", 3)
                yield {**batch, "label": label, "mask": np.ones(len(label), np.float32)}
                step += 1
            return
        except failure as error:
            # If the config skips unreadable examples, the failed batch is read again without them.
            faults.meet(functools.partial(rows_of, step), example, error)


_open: weakref.WeakSet = weakref.WeakSet()


def _closed_at_exit(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Closes the iterator at exit: a tf.data thread that runs Python would make the exit hang."""
    if not _open:  # registered last, so that it runs first: before TensorFlow's own
        atexit.unregister(_close_all)
        atexit.register(_close_all)
    _open.add(batches)
    return batches


def _close_all():
    for batches in list(_open):
        with contextlib.suppress(ValueError):  # another thread is taking a batch from it
            batches.close()


def _threads() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux: what this process may use
    return len(affinity(0)) if affinity else os.cpu_count()
