"""What of a dataset is read, how often and in which order: the part of config.data that every
dataset shares."""

import collections
import dataclasses
import functools
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np

from imgcls_jax import datasets
from imgcls_jax.data.batches import eval_batches, train_batches, train_order
from imgcls_jax.data.cache import cached
from imgcls_jax.data.faults import LABELS, REPAIR, Faults
from imgcls_jax.data.order import Order, generator
from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.samplers import SAMPLERS
from imgcls_jax.types import Batch, Lookup, Shards, Source


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions:
    """What config.data may say of any dataset, in addition to the arguments of the dataset itself.

    train, eval: splits, or parts of them. parts: "mixed", those of folders and manifests, whose
    examples may lie in order of class, are drawn by a fixed permutation; "listed", all are a run of
    the order in which the examples lie, as record files and published sets always are. mean,
    std: per channel, in place of the model's.
    sampling: dict(name="class_balanced" or "repeat_factor", ...), how often each example comes.
    repeats: draws of the same image one after the other, each augmented in its own way. only:
    classes to keep, in this order. per_class: examples of each class to train on, drawn by the
    seed. on_device: the images are kept on the accelerator; host transforms run once. cache:
    "memory" or a folder of a fast disk, where encoded images are kept once they have been read.
    on_change: "accept" lets a run go on with other examples than it was trained with.
    on_error: "skip" lets another example stand in for one that cannot be read, up to max_bad of
    them and max_bad_fraction of the split, each listed in bad_samples.jsonl.
    """

    train: str = "train"
    eval: str = "validation"
    parts: Literal["mixed", "listed"] = "mixed"
    mean: Any = None
    std: Any = None
    sampling: Annotated[Callable, SAMPLERS] | None = None
    repeats: int = 1
    only: tuple[str, ...] = ()
    per_class: int | None = None
    on_device: bool = False
    cache: str = ""
    on_change: Literal["fail", "accept"] = "fail"
    on_error: Literal["fail", "skip"] = "fail"
    max_bad: int = 100
    max_bad_fraction: float = 0.001

    def __post_init__(self):
        for name, least in (("repeats", 1), ("per_class", 1), ("max_bad", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name}={value}", where=f"config.data.{name}",
                                  fix=f"use {least} or more")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError(f"max_bad_fraction={self.max_bad_fraction}",
                              where="config.data.max_bad_fraction", fix="use a share of 0 to 1")


@dataclasses.dataclass(frozen=True)
class Feed:
    """A dataset with the options of config.data. bad_samples: what was skipped and not yet told."""

    source: Source
    seed: int
    options: DataOptions
    bad_samples: collections.deque = dataclasses.field(default_factory=collections.deque)
    _made: dict = dataclasses.field(default_factory=dict, init=False, repr=False)
    _making: Any = dataclasses.field(default_factory=threading.RLock, init=False, repr=False)

    def _once(self, make: Callable, name: str):
        """make(split), once: training and evaluations, which run in several threads, share it."""
        with self._making:
            if (make.__name__, name) not in self._made:
                self._made[make.__name__, name] = make(name)
            return self._made[make.__name__, name]

    def order(self, name: str) -> Order | None:
        """The order of training from a split; None of record files that are not sampled."""
        return self._once(self._make_order, name)

    def _make_order(self, name: str) -> Order | None:
        sampler, repeats = self.options.sampling, self.options.repeats
        if sampler is None:
            split = self.split(name)
            return (Order(split.size, self.seed, repeats=repeats)
                    if isinstance(split, Lookup) else None)
        labels = datasets.labels(self.source, name, "config.data.sampling")
        weights = sampler(labels, len(self.source.classes))
        return Order(len(labels), self.seed, repeats=repeats, weights=weights)

    @functools.cached_property
    def examples(self) -> int:
        """The number of draws in an epoch of training."""
        if self.options.sampling is None:
            return datasets.size(self.source, self.options.train, "config.data.train")
        return self.order(self.options.train).length

    def labels(self, where: str) -> np.ndarray:
        """i32[N] or f32[N,K], those of the training split; where: the key that asks for them."""
        return datasets.labels(self.source, self.options.train, where)

    def split(self, name: str) -> Lookup | Shards:
        """Opened once, with the cache in front of it."""
        return self._once(self._open, name)

    def _open(self, name: str) -> Lookup | Shards:
        opened = datasets.split(self.source, name)
        self._warn_of_missing_classes(name, opened)
        where = self.options.cache
        return cached(opened, where, f"{self.source.name}-{name}") if where else opened

    def _warn_of_missing_classes(self, name: str, opened: Lookup | Shards):
        """Where a part of a split, such as train[:10%], has no example of some classes."""
        if ("[" not in name or self.source.kind != "multiclass" or not isinstance(opened, Lookup)
                or not opened.labels):
            return
        absent = np.setdiff1d(np.arange(len(self.source.classes)), np.asarray(opened.labels()))
        if len(absent):
            warnings.warn(f"{name} has no example of {len(absent):,} of "
                          f"{len(self.source.classes):,} classes: "
                          f"{[self.source.classes[k] for k in absent[:8]]}", stacklevel=4)

    def faults(self, name: str) -> Faults:
        """Those of a split: what has been found stays found."""
        return self._once(self._make_faults, name)

    def _make_faults(self, name: str) -> Faults:
        keys = ("on_error", "max_bad", "max_bad_fraction")
        return Faults(self.split(name), name=name, report=self.bad_samples.append,
                      **{key: getattr(self.options, key) for key in keys})

    def _check_labels(self, name: str):
        """DataError for a label of a split that is no class, where all labels are known before an
        image is read: sooner than at the batch that has it."""
        return self._once(self._look_at_labels, name)

    def _look_at_labels(self, name: str):
        split, classes = self.split(name), len(self.source.classes)
        # Those of several classes would be a table of them all; they are looked at as they come.
        if self.source.kind != "multiclass" or not isinstance(split, Lookup) or not split.labels:
            return
        labels = np.asarray(split.labels())
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            wrong = np.flatnonzero((labels < 0) | (labels >= classes))
            raise DataError(f"label {labels[wrong[0]]}: {LABELS} 0 to {classes - 1}; {len(wrong):,}"
                            f" of {len(labels):,} in {name!r} are not",
                            where=split.where(int(wrong[0])), fix=REPAIR)
        there = np.zeros(classes, bool)
        there[labels] = True
        if name == self.options.train and "[" not in name and 2 * there.sum() < classes:
            warnings.warn(f"only {there.sum():,} of the {classes:,} classes of {self.source.name} "
                          f"have examples in {name!r}", stacklevel=2)

    def train(self, name: str, transforms: Sequence[Callable], *, batch_size: int, start_step: int,
              rows: slice) -> Iterator[Batch]:
        """Batches of training from a step on, as of pipeline.train_batches."""
        if self.options.on_error == "fail":
            self._check_labels(name)
        return train_batches(
            self.split(name), transforms, batch_size=batch_size, seed=self.seed,
            start_step=start_step, rows=rows, channels=self.source.channels,
            classes=len(self.source.classes), order=self.order(name),
            repeats=self.options.repeats, faults=self.faults(name))

    def numbers(self, name: str, *, batch_size: int, start_step: int,
                rows: slice) -> Iterator[Batch]:
        """Which examples the batches of `train` hold, as of pipeline.train_order."""
        return train_order(
            self.split(name), batch_size=batch_size, seed=self.seed, start_step=start_step,
            rows=rows, order=self.order(name), repeats=self.options.repeats,
            faults=self.faults(name))

    def evaluate(self, name: str, transforms: Sequence[Callable], *, batch_size: int, rows: slice,
                 on_error: str = "fail", seed: int = 0, turn: int = 0) -> Iterator[Batch]:
        """Batches of evaluation, as of pipeline.eval_batches; what cannot be read ends it, unless
        on_error="skip"."""
        faults = self.faults(name) if on_error == "skip" else None
        if not faults:
            self._check_labels(name)
        return eval_batches(
            self.split(name), transforms, batch_size=batch_size, rows=rows,
            channels=self.source.channels, classes=len(self.source.classes), seed=seed, turn=turn,
            faults=faults)


def select(source: Source, options: DataOptions, seed: int) -> Source:
    """The source with `parts`, `only` and `per_class` of the options."""
    if options.parts == "listed":
        source = dataclasses.replace(source, mixed=False)
    if options.only:
        source = datasets.only(source, options.only)
    if options.per_class:
        source = datasets.per_class(source, options.train, options.per_class,
                                    lambda label: generator(seed, label))
    return source

