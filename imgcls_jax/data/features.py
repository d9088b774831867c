"""What a frozen network makes of the images of a split, computed once and kept in a folder.

Features are found by a digest of the pixels that they were computed from, in a file that begins
with a digest of the program, of the weights and of the versions of JAX and the device. All pixels
are read once by every process, so no change of data, transforms, weights, size, dtype or code is
missed.
"""

import contextlib
import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from imgcls_jax import tree
from imgcls_jax.data.feed import Feed
from imgcls_jax.errors import EnvironmentFailure
from imgcls_jax.parallel import transfer
from imgcls_jax.parallel.mesh import BATCH
from imgcls_jax.parallel.rules import abstract
from imgcls_jax.types import Array, Batch, Tree

DIGEST = 16  # bytes of BLAKE2b
AT_ONCE = 64  # images that a device computes at once, whatever the batch of the run
SAY_AFTER = 30.0  # seconds between lines of progress


class Kept:
    """A file of features: `key`, which tells what made them, then one record per image.

    It only grows, a batch at a time. What an interrupted write left is cut off, a damaged record is
    dropped, and the file of another key is begun again. say: takes a line for the log.
    """

    def __init__(self, path: Path, key: bytes, row: jax.ShapeDtypeStruct, say: Callable):
        self._path, self._row = path, row
        size = int(np.prod(row.shape)) * row.dtype.itemsize
        self._layout = np.dtype([("image", np.uint8, (DIGEST,)), ("row", np.uint8, (size,)),
                                 ("check", np.uint8, (DIGEST,))])
        with self._writing():
            path.parent.mkdir(exist_ok=True)
            path.touch()
            with path.open("r+b") as file:
                held = file.read(DIGEST)
                if held != key:
                    if held:
                        say(f"{path} is of other weights or another program: it is begun again")
                    file.truncate(0)
                    file.seek(0)
                    file.write(key)
                    file.flush()
                records = (path.stat().st_size - DIGEST) // self._layout.itemsize
                file.truncate(DIGEST + records * self._layout.itemsize)
        self._open()
        good = np.array([_digest(one["image"], one["row"]) == one["check"].tobytes()
                         for one in self._records], bool)
        if not good.all():
            say(f"{np.sum(~good):,} of {len(good):,} features in {path} are damaged: they are "
                "computed again")
            with self._writing():
                whole = path.with_suffix(".whole")
                whole.write_bytes(key + self._records[good].tobytes())
                whole.replace(path)
            self._open()
        self._places = {one.tobytes(): place for place, one in enumerate(self._records["image"])}

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except OSError as error:
            raise EnvironmentFailure(f"cannot write: {error.strerror or error}",
                                     where=str(self._path),
                                     fix="free some space, choose another --workdir, or set "
                                         "config.probe.views=0, which keeps no features") from error

    def _open(self):
        records = (self._path.stat().st_size - DIGEST) // self._layout.itemsize
        self._records = np.memmap(self._path, self._layout, "r", DIGEST, (records,)) if (
            records) else np.empty(0, self._layout)

    def places(self, images: np.ndarray, count: int, compute: Callable) -> tuple[np.ndarray, int]:
        """(i64[count], the records of the first images of a batch; how many of them are new).

        compute: images -> their features, asked for the whole batch where one is new.
        """
        digests = [_digest(image) for image in images[:count]]
        new = {digest: i for i, digest in enumerate(digests) if digest not in self._places}
        if new:
            rows = compute(images)
            made = np.empty(len(new), self._layout)
            for record, (digest, i) in zip(made, new.items(), strict=True):
                record["image"] = np.frombuffer(digest, np.uint8)
                record["row"] = np.ascontiguousarray(rows[i]).reshape(-1).view(np.uint8)
                record["check"] = np.frombuffer(_digest(record["image"], record["row"]), np.uint8)
            with self._writing(), self._path.open("ab") as file:
                first = (file.tell() - DIGEST) // self._layout.itemsize
                file.write(made.tobytes())
            self._places |= {digest: first + n for n, digest in enumerate(new)}
        return np.array([self._places[digest] for digest in digests], np.int64), len(new)

    def take(self, places: np.ndarray) -> np.ndarray:
        """The features f[n,...] of n records."""
        if places.max(initial=-1) >= len(self._records):
            self._open()
        rows = np.ascontiguousarray(self._records["row"][places])
        return rows.view(self._row.dtype).reshape(len(places), *self._row.shape)


def _digest(*arrays: Array) -> bytes:
    found = hashlib.blake2b(digest_size=DIGEST)
    for array in arrays:
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.digest()


class Frozen:
    """A frozen network, which has a file of features for every size of images.

    compute: (variables, images u8[B,H,W,C]) -> f[B,...], on `mesh`. folder: of the files.
    """

    def __init__(self, compute: Callable, mesh: Mesh, folder: Path):
        self.mesh, self.batch_size = mesh, AT_ONCE * mesh.shape["data"] * mesh.shape["fsdp"]
        self._batched = NamedSharding(mesh, BATCH)
        self._compute, self._folder = jax.jit(compute), folder
        self._made: dict[tuple, tuple[Callable, Kept]] = {}

    def begin(self, variables: Tree, say: Callable[[str], None]):
        """variables: those that training leaves as they are, on the mesh. Asked before anything
        else."""
        # A copy on the host, because the training step donates the buffers of its state.
        self._where = jax.tree.map(lambda leaf: leaf.sharding, variables)
        self._variables, self._placed, self.say = jax.tree.map(np.array, variables), None, say

    def rest(self):
        """Frees the variables on the devices until something is computed again."""
        self._placed = None

    def images(self, shape: tuple[int, int, int]) -> jax.ShapeDtypeStruct:
        """u8[B,H,W,C], abstract: what is computed at once."""
        return jax.ShapeDtypeStruct((self.batch_size, *shape), np.uint8, sharding=self._batched)

    def of(self, shape: tuple[int, int, int]) -> tuple[Callable, Kept]:
        """(images u8[B,H,W,C] on the host -> f[B,...], the features kept) of images (H, W, C)."""
        if shape not in self._made:
            lowered = self._compute.lower(abstract(self._variables, self._where),
                                          self.images(shape))
            row = jax.ShapeDtypeStruct(lowered.out_info.shape[1:], lowered.out_info.dtype)
            path = self._folder / f"{'x'.join(map(str, shape))}.features"
            kept = Kept(path, self._key(lowered.as_text()), row, self.say)

            @functools.cache
            def program():
                return lowered.compile()

            def compute(batch: np.ndarray) -> np.ndarray:
                if self._placed is None:
                    self._placed = transfer.place(self._variables, self._where)
                sent = transfer.to_device({"image": batch}, self.batch_size, self.mesh)["image"]
                return np.asarray(program()(self._placed, sent))

            self._made[shape] = compute, kept
        return self._made[shape]

    def _key(self, program: str) -> bytes:
        device = self.mesh.devices.flat[0]
        found = hashlib.blake2b(digest_size=DIGEST)
        for text in (program, jax.__version__, device.device_kind, device.client.platform_version):
            found.update(text.encode() + b"\0")
        for path, leaf in sorted(tree.flatten(self._variables).items()):
            found.update(f"{path} {leaf.dtype} {leaf.shape}\0".encode())
            found.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
        return found.digest()


class Features:
    """A split, of which batches have features in the place of images.

    shape: (H, W, C) of the images that the transforms give. views: in training, how many augmented
    views of an example there are: those of its first epochs, which then come again. None: the split
    as it is evaluated. on_error: "skip" puts stand-ins, those of the feed's faults, in the place of
    examples that cannot be read. where: the key of the transforms.
    """

    def __init__(self, feed: Feed, split: str, transforms: Sequence[Callable], frozen: Frozen,
                 shape: tuple[int, int, int], *, views: int | None, on_error: str, where: str):
        self._feed, self._split, self._transforms, self._frozen = feed, split, transforms, frozen
        self._shape, self._views, self._where = shape, views, where
        self._on_error = on_error

    @functools.cached_property
    def _examples(self) -> tuple[np.ndarray, np.ndarray]:
        """(i64[views, N], the records of the examples; i32[N] or f32[N,K], their labels)."""
        frozen, began = self._frozen, time.perf_counter()
        compute, kept = frozen.of(self._shape)
        size = self._feed.split(self._split).size
        places, labels = np.empty((self._views or 1, size), np.int64), None
        done = computed = 0
        told = began
        for view in range(len(places)):
            for batch in self._read(view):
                transfer.check_arrays({"image": batch["image"]}, {"image": frozen.images(
                    self._shape)}, self._where)
                ids = batch["id"][batch["id"] >= 0]
                places[view, ids], new = kept.places(batch["image"], len(ids), compute)
                if labels is None:
                    labels = np.empty((size, *batch["label"].shape[1:]), batch["label"].dtype)
                labels[ids] = batch["label"][:len(ids)]
                done, computed = done + len(ids), computed + new
                if time.perf_counter() - told > SAY_AFTER:
                    told = time.perf_counter()
                    frozen.say(f"features of {self._split}: {done:,} of {places.size:,}")
        frozen.rest()
        views = f", {self._views} views of {size:,} images" if (self._views or 1) > 1 else ""
        frozen.say(f"features of {self._split}{views}: {computed:,} computed, {done - computed:,} "
                   f"taken from the cache, in {time.perf_counter() - began:.1f}s")
        return places, labels

    def _read(self, view: int) -> Iterator[Batch]:
        count = self._frozen.batch_size
        return self._feed.evaluate(
            self._split, self._transforms, batch_size=count, rows=slice(0, count),
            on_error=self._on_error, seed=self._feed.seed if self._views else 0, turn=view)

    def _batch(self, ids: np.ndarray, turns) -> Batch:
        """Features and labels of examples; those of example 0 for an id of -1."""
        places, labels = self._examples
        some = np.maximum(ids, 0)
        _, kept = self._frozen.of(self._shape)
        return {"image": kept.take(places[turns % len(places), some]), "label": labels[some],
                "id": ids}

    def train(self, batch_size: int, start_step: int, rows: slice) -> Iterator[Batch]:
        """This process's part of the batches from a step on, in the order of Feed.train."""
        _ = self._examples  # so that what cannot be read is known before the order is asked for
        ones = np.ones(rows.stop - rows.start, np.float32)
        for numbers in self._feed.numbers(self._split, batch_size=batch_size,
                                          start_step=start_step, rows=rows):
            yield {**self._batch(numbers["id"], numbers["turn"]), "mask": ones}

    def evaluate(self, batch_size: int, rows: slice) -> Iterator[Batch]:
        """Every example once, in order; padding and stand-ins have mask 0."""
        size = self._feed.split(self._split).size
        # Which these are is known once everything has been read.
        bad = list(self._feed.faults(self._split).stand_ins) if (
            self._examples and self._on_error == "skip") else []
        for first in range(0, size, batch_size):
            ids = first + np.arange(rows.start, rows.stop)
            ids = np.where(ids < size, ids, -1)
            yield {**self._batch(ids, 0),
                   "mask": ((ids >= 0) & ~np.isin(ids, bad)).astype(np.float32)}

    def put(self, batch: Batch, batch_size: int) -> Batch:
        """The global batch on the mesh."""
        return transfer.to_device(batch, batch_size, self._frozen.mesh)
