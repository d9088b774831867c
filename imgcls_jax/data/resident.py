"""Small data kept on the accelerator, whole on every device: a step is sent numbers, not images."""

import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from imgcls_jax.data import streams
from imgcls_jax.data.batches import eval_batches
from imgcls_jax.data.feed import Feed
from imgcls_jax.data.order import Order
from imgcls_jax.errors import ConfigError
from imgcls_jax.parallel import transfer
from imgcls_jax.parallel.mesh import BATCH
from imgcls_jax.types import Batch

AT_ONCE = 1024  # examples decoded into one batch


class Resident:
    """A split, decoded and transformed once.

    The order of training is that of sampling.Order, for record files too. on_error: "skip" puts
    stand-ins, those of the feed's faults, in the place of examples that cannot be read. Raises
    ConfigError for a transform that is random: its first draw would be that of every epoch.
    """

    def __init__(self, feed: Feed, split: str, transforms: Sequence[Callable], mesh: Mesh,
                 on_error: str = "fail"):
        self._feed, self._split, self._transforms, self._mesh = feed, split, transforms, mesh
        self._faults = feed.faults(split) if on_error == "skip" else None
        self._batched = NamedSharding(mesh, BATCH)

    @functools.cached_property
    def _arrays(self) -> dict:
        """{"image": u8[N,H,W,C], "label": i32[N] or f32[N,K]} on the mesh."""
        size = self._feed.split(self._split).size
        whole: dict[str, np.ndarray] = {}
        filled = 0
        for batch in self._read(seed=0):
            real = int((batch["id"] >= 0).sum())  # mask 0 is of stand-ins too
            if not whole:
                self._refuse_random(batch)
                whole = {name: np.empty((size, *batch[name].shape[1:]), batch[name].dtype)
                         for name in ("image", "label")}
            for name, array in whole.items():
                array[filled:filled + real] = batch[name][:real]
            filled += real
        everywhere = NamedSharding(self._mesh, PartitionSpec())
        return transfer.place(whole, dict.fromkeys(whole, everywhere))

    def _read(self, seed: int) -> Iterator[Batch]:
        count = min(self._feed.split(self._split).size, AT_ONCE)
        return eval_batches(
            self._feed.split(self._split), self._transforms, batch_size=count, seed=seed,
            rows=slice(0, count), channels=self._feed.source.channels,
            classes=len(self._feed.source.classes), faults=self._faults)

    def _refuse_random(self, batch: Batch):
        other = next(self._read(seed=1))
        if not np.array_equal(batch["image"], other["image"]):
            raise ConfigError("a transform is random, and with data.on_device it would run once",
                              where="config.transforms",
                              fix="put its like into config.device_transforms")

    def train(self, batch_size: int, start_step: int, rows: slice) -> Iterator[Batch]:
        """This process's part of the batches from a step on, as numbers."""
        order = self._feed.order(self._split) or Order(
            self._feed.split(self._split).size, self._feed.seed,
            repeats=self._feed.options.repeats)
        draws = streams.spread(rows, batch_size, order.repeats)
        ones = np.ones(len(draws), np.float32)
        step = start_step
        while True:
            ids, _ = order.at(step * batch_size + draws)
            yield {"id": ids, "mask": ones}
            step += 1

    def evaluate(self, batch_size: int, rows: slice) -> Iterator[Batch]:
        """Every example once, in order; the last batch is filled up with example 0 and mask 0, and
        a stand-in has mask 0."""
        size = self._feed.split(self._split).size
        # Which these are is known once everything has been read.
        bad = list(self._faults.stand_ins) if self._faults and self._arrays else []
        for first in range(0, size, batch_size):
            ids = first + np.arange(rows.start, rows.stop)
            yield {"id": np.where(ids < size, ids, -1),
                   "mask": ((ids < size) & ~np.isin(ids, bad)).astype(np.float32)}

    def put(self, batch: Batch, batch_size: int) -> Batch:
        """Numbers -> the global batch on the mesh."""
        sent = {"number": np.maximum(batch["id"], 0).astype(np.int32), "mask": batch["mask"]}
        sent = transfer.to_device(sent, batch_size, self._mesh)
        return self._gather(self._arrays, sent["number"], sent["mask"])

    @functools.cached_property
    def _gather(self):
        """Every device has all images: no example crosses between them."""
        def gather(arrays, number, mask):
            return {**{name: array[number] for name, array in arrays.items()}, "mask": mask}

        return jax.jit(gather, out_shardings=self._batched)
