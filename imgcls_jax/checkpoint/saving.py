"""Saving the checkpoints of a run, and restoring them to resume it."""

import contextlib
import errno
import functools
import itertools
import logging
import math
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.path import atomicity

from imgcls_jax import tree
from imgcls_jax.checkpoint import digests, reading
from imgcls_jax.errors import EnvironmentFailure
from imgcls_jax.types import TrainState

MARGIN = 1.1  # a step takes a little more disk space than its arrays
REMOVING = ".removing-"  # begins the name of a step that is being deleted


@functools.cache
def _hush_failed_writes():
    """Drops the messages that follow a failed write.

    When one write of a save fails, Orbax raises that error and closes its event loop while others
    are still writing. Their "event loop is closed" messages, in asyncio's log and through
    sys.unraisablehook, repeat the first error.
    """
    def told(record) -> bool:
        return "exception was never retrieved" not in record.getMessage()

    def unraisable(args, others=sys.unraisablehook):
        if str(args.exc_value) != "Event loop is closed":
            others(args)

    logging.getLogger("asyncio").addFilter(told)
    sys.unraisablehook = unraisable


class Checkpoints:
    """The checkpoints of one run. Every process creates one and calls all of its methods.

    keep: how many of the newest stay, and the one with the best score (best_mode "max" | "min").
    """

    def __init__(self, directory: Path, *, keep: int, best_mode: Literal["max", "min"] = "max"):
        self.directory = Path(directory).absolute()
        self._keep, self._mode = keep, best_mode
        self._lazy: ocp.CheckpointManager | None = None
        self._scores: dict[int, float | None] = {}
        self._saving: int | None = None

    @property
    def _manager(self) -> ocp.CheckpointManager:
        """Orbax's manager; it lists the folder, so `restore` has to put that in order first."""
        if self._lazy is None:
            self._scores.update({s: reading.score_of(self.directory / str(s))[0]
                                 for s in digests.steps(self.directory)})
            _hush_failed_writes()
            with self._explained():
                self._lazy = ocp.CheckpointManager(
                    self.directory, item_names=reading.ITEMS, options=ocp.CheckpointManagerOptions(
                        temporary_path_class=atomicity.CommitFileTemporaryPath,
                        async_options=ocp.AsyncOptions(
                            post_finalization_callback=self._seal,
                            # Otherwise a folder that cannot be created leaves threads running that
                            # keep the process from ending for five minutes.
                            create_directories_asynchronously=False)))
        return self._lazy

    def _seal(self):
        # Orbax calls this when all files are there and before it writes the marker, so that a
        # committed step always has its digest file.
        if jax.process_index() == 0:
            digests.sign(self.directory / str(self._saving))
            (self.directory / digests.SAVING).unlink(missing_ok=True)
            self._retain()

    def _retain(self):
        """Deletes steps of ours but the newest `keep`, and the one with the best score."""
        steps = digests.steps(self.directory)
        sign = 1 if self._mode == "max" else -1
        scored = [(sign * score, step) for step in steps
                  if (score := self._scores.get(step)) is not None]
        kept = {*steps[:self._keep], *(step for _, step in sorted(scored)[-1:])}
        for step in steps:
            folder = self.directory / str(step)
            if step not in kept and (folder / digests.MANIFEST).is_file():
                # Renamed first: one that is half deleted is no step any more.
                going = self.directory / f"{REMOVING}{step}"
                folder.rename(going)
                shutil.rmtree(going, ignore_errors=True)

    def restore(self, state: TrainState, compare: Callable[[dict], None] | None = None
                ) -> tuple[TrainState, dict, int] | None:
        """(state, config item, step) of the newest good step, or None where there is none yet.

        state: abstract, with the shardings to restore to, of any topology. compare: is given the
        config item before the states are compared, and raises where it is of another run. Newer
        steps that are damaged are named in warnings and moved to `damaged/` next to the folder.
        Called before anything is saved. Raises CheckpointError if there are steps and none is good,
        or the trees differ.
        """
        step = reading.agree(self._put_in_order)
        if step is None:
            return None
        folder = self.directory / str(step)
        with reading.explaining(folder):
            saved = reading.read_item(folder)
        if compare:
            compare(saved)
        with reading.explaining(folder):
            with ocp.StandardCheckpointer() as reader:
                for item, wanted in (("weights", reading.weights_item(state)),
                                     ("training", reading.training_item(state))):
                    reading.compare(wanted, reading.stored_shapes(reader, folder / item), folder)
            found = self._manager.restore(step, args=ocp.args.Composite(
                weights=ocp.args.StandardRestore(reading.weights_item(state)),
                training=ocp.args.StandardRestore(reading.training_item(state))))
            return TrainState(**found["training"], **found["weights"]), saved, step

    def _put_in_order(self) -> int | None:
        """The newest good step. Remains of our own killed saves and deletions are removed; newer
        steps, and folders that are named like a step and are none, are moved away."""
        steps = digests.steps(self.directory)
        step, complaints = digests.first_good(self.directory, steps)
        reading.warn(self.directory, complaints)
        if steps and step is None:
            raise reading.none_good(self.directory, complaints)
        folders = self.directory.iterdir() if self.directory.is_dir() else ()
        with self._explained():
            for folder in sorted(folder for folder in folders if folder.is_dir()):
                number = digests.number(folder)
                if number is None:
                    if folder.name.startswith(REMOVING):
                        shutil.rmtree(folder)
                elif number in steps and step is not None and number > step:
                    self._move_away(folder)
                elif (folder / digests.MARKER).is_file():
                    continue
                elif digests.verify(folder) is None:
                    (folder / digests.MARKER).touch()  # killed before that, or lost in copying
                elif number == digests.unfinished(self.directory):
                    self._remove_unfinished()
                else:
                    if step is None:
                        reading.check_unmarked(folder)
                    self._move_away(folder, "it is no complete checkpoint")
        return step

    def _move_away(self, folder: Path, why: str = ""):
        """To `damaged/` next to the checkpoints, under a name that is free there."""
        aside = self.directory.parent / "damaged"
        aside.mkdir(exist_ok=True)
        names = itertools.chain([folder.name], (f"{folder.name}.{i}" for i in itertools.count(1)))
        free = next(aside / name for name in names if not (aside / name).exists())
        folder.rename(free)
        warnings.warn(f"{folder} is moved to {free}" + f": {why}" * bool(why), stacklevel=2)

    def save(self, step: int, state: TrainState, config: Mapping[str, Any],
             score: float | None = None):
        """Saves in the background, after earlier saves; a step that is already there stays.

        config: JSON-able. Raises EnvironmentFailure if the disk has too little space, or if the
        save before this one failed.
        """
        self.wait()
        if step in digests.steps(self.directory):
            return
        self._check_room(state)
        with self._explained():
            if jax.process_index() == 0:
                self._remove_unfinished()
                folder = self.directory / str(step)
                if folder.exists():  # Orbax would delete it
                    self._move_away(folder, "it is no complete checkpoint")
                self.directory.mkdir(parents=True, exist_ok=True)
                (self.directory / digests.SAVING).write_text(str(step))
        if score is not None and not math.isfinite(score):
            score = None  # cannot be compared
        self._saving, self._scores[step] = step, score
        item = {**config, "score": score, "best_mode": self._mode}
        with self._explained():
            self._manager.save(step, force=True, args=ocp.args.Composite(
                weights=ocp.args.StandardSave(reading.weights_item(state)),
                training=ocp.args.StandardSave(reading.training_item(state)),
                config=ocp.args.JsonSave(item)))

    def _check_room(self, state: TrainState):
        arrays = reading.weights_item(state), reading.training_item(state)
        needed = int(tree.size_bytes(arrays) * MARGIN) + (1 << 16)
        place = self.directory if self.directory.is_dir() else self.directory.parent
        free = shutil.disk_usage(place).free
        if reading.agree(lambda: int(free < needed)):
            raise self._not_written(f"{needed:,} bytes are needed, {free:,} are free")

    def _not_written(self, why: str) -> EnvironmentFailure:
        good = self.latest()
        kept = "nothing is saved yet" if good is None else f"step {good} is saved and good"
        return EnvironmentFailure(f"the checkpoint cannot be written: {why}",
                                  where=str(self.directory),
                                  fix=f"free some space and run the same line again; {kept}")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns a file system's error into an EnvironmentFailure; removes the unfinished save."""
        try:
            yield
        except Exception as error:
            text = f"{error} {error.__cause__ or ''}"
            codes = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENOTDIR,
                     errno.EFBIG, errno.EPERM, errno.EIO)
            code = next((c for c in codes if os.strerror(c) in text
                         or getattr(error, "errno", None) == c), None)
            if code is None:
                raise
            self._remove_unfinished()
            raise self._not_written(os.strerror(code)) from error

    def _remove_unfinished(self):
        step = digests.unfinished(self.directory)
        folder = self.directory / str(step)
        if jax.process_index() == 0 and step is not None and not (
                folder / digests.MANIFEST).is_file():
            shutil.rmtree(folder, ignore_errors=True)

    def wait(self):
        """Waits until everything is saved. Raises EnvironmentFailure if it cannot be."""
        if self._lazy is not None:
            with self._explained():
                self._lazy.wait_until_finished()
                self._lazy.check_for_errors()

    def latest(self) -> int | None:
        """The newest committed step."""
        return next(iter(digests.steps(self.directory)), None)

    def reached_preemption(self, step: int) -> bool:
        """Whether the processes have agreed to stop after this step (jax.distributed only)."""
        return jax.process_count() > 1 and self._manager.reached_preemption(step)

    def close(self):
        """Waits for the save under way, then closes. Raises EnvironmentFailure if it failed."""
        if self._lazy is not None:
            with self._explained():
                self._lazy.close()
            self._remove_unfinished()  # threads of a failed save may have gone on writing
