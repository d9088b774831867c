"""Checkpoints: save, restore, verify. Orbax writes the arrays; nobody else imports it.

A step is one folder and one commit of three items: `weights` (params, model_state, ema),
`training` (step, opt_state) and `config` (JSON, with the score). Orbax restores flipped bits
silently and takes an empty folder for a step: here a commit is a marker file, written after a
manifest of digests (manifest.py) that is compared when restoring.
"""

import contextlib
import dataclasses
import errno
import functools
import json
import logging
import math
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers
from orbax.checkpoint.path import atomicity

from imgcls_jax import manifest, tree
from imgcls_jax.errors import CheckpointError, EnvironmentFailure
from imgcls_jax.types import TrainState

ITEMS = ("weights", "training", "config")
MARGIN = 1.1  # a step takes a little more room than its arrays

# Orbax tells of every item of every save, and of an error with the tracebacks of all its threads;
# what it raises says enough.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)


@functools.cache
def _hush_failed_writes():
    """When one write of a save fails, Orbax raises that and closes its event loop under the others.

    What those say on the way out, through asyncio's log and Python's last resort, is no news.
    """
    def told(record) -> bool:
        return "exception was never retrieved" not in record.getMessage()

    def unraisable(args, others=sys.unraisablehook):
        if str(args.exc_value) != "Event loop is closed":
            others(args)

    logging.getLogger("asyncio").addFilter(told)
    sys.unraisablehook = unraisable


def _read_json_item(folder: Path) -> dict:
    return json.loads((folder / "config" / "metadata").read_text())


def _score(folder: Path) -> tuple[float | None, int]:
    """(score, 1 where the highest is best, else -1) of a step; no score of a damaged one."""
    with contextlib.suppress(OSError, ValueError):
        item = _read_json_item(folder)
        return item.get("score"), -1 if item.get("best_mode") == "min" else 1
    return None, 1


def _agree(choose) -> int | None:
    """What `choose()` returns on process 0, on all of them; its CheckpointError likewise."""
    if jax.process_count() == 1:
        return choose()
    found, error = None, None
    if jax.process_index() == 0:
        try:
            found = choose()
        except CheckpointError as raised:
            error = raised
    code = -2 if error else -1 if found is None else found
    code = int(multihost_utils.broadcast_one_to_all(np.int32(code)))
    if code == -2:
        raise error or CheckpointError("process 0 found no good checkpoint")
    return None if code == -1 else code


def _warn(directory: Path, complaints: list[str]):
    for complaint in complaints:
        warnings.warn(f"{complaint} ({directory})", stacklevel=4)


def _none_good(directory: Path, complaints: list[str]) -> CheckpointError:
    more = f"; and {len(complaints) - 2} more" if len(complaints) > 2 else ""
    return CheckpointError("no checkpoint here is good: " + "; ".join(complaints[:2]) + more,
                           where=str(directory),
                           fix="restore the files from a copy, or start in a new workdir")


# ---- reading --------------------------------------------------------------------------------


def choose(directory: Path, step: int | str = "latest") -> int:
    """The good step that `step` means: a number, "latest" or "best". Raises CheckpointError."""
    directory = Path(directory).absolute()

    def chosen():
        steps = manifest.steps(directory)
        if not steps:
            raise CheckpointError("there is no checkpoint", where=str(directory),
                                  fix="name the workdir of a run that has saved one")
        if step == "best":
            scores = [(*_score(directory / str(s)), s) for s in steps]
            steps = [s for _, s in sorted(((sign * score, s) for score, sign, s in scores
                                           if score is not None), reverse=True)]
            if not steps:
                raise CheckpointError("no checkpoint has a score", where=str(directory),
                                      fix="set config.checkpoint.best in training, or use latest")
        elif step != "latest":
            if not str(step).isdigit() or int(step) not in steps:
                raise CheckpointError(f"there is no checkpoint {step!r}", where=str(directory),
                                      fix=f"use one of {sorted(steps)}, 'latest' or 'best'")
            steps = [int(step)]
        found, complaints = manifest.first_good(directory, steps)
        _warn(directory, complaints)
        if found is None:
            raise _none_good(directory, complaints)
        return found

    return _agree(chosen)


def read_config(directory: Path, step: int | str = "latest") -> tuple[dict, int]:
    """(the `config` item of a good step, its number)."""
    found = choose(directory, step)
    return _read_json_item(Path(directory) / str(found)), found


def restore_weights(directory: Path, step: int | str = "latest",
                    state: TrainState | None = None) -> tuple[dict, dict, int]:
    """({"params", "model_state", "ema"}, config item, step) without the optimizer's state.

    state: abstract, with shardings, and compared strictly; without it the arrays are numpy.
    """
    saved, found = read_config(directory, step)
    folder = Path(directory).absolute() / str(found)
    with _reading(folder), ocp.StandardCheckpointer() as reader:
        stored = _stored(reader, folder / "weights")
        if state is not None:
            _compare(_weights(state), stored, folder)
            target = _weights(state)
        else:
            target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), stored)
        return reader.restore(folder / "weights", target), saved, found


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """What Orbax says of a folder that it cannot read, such as an unverified one, for a person."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{error}".strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"the checkpoint cannot be read: {reason[0][:300]}",
                              where=str(folder),
                              fix="restore its files from a copy, or move it away to use the one "
                                  "before it") from error


def _weights(state: TrainState) -> dict:
    return {"params": state.params, "model_state": state.model_state, "ema": state.ema}


def _training(state: TrainState) -> dict:
    return {"step": state.step, "opt_state": state.opt_state}


def _stored(reader, folder: Path):
    """Shapes and dtypes of an item on the disk."""
    found = reader.metadata(folder)
    found = getattr(found, "item_metadata", found)
    found = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
                         getattr(found, "tree", found))
    if not jax.tree.leaves(found):
        raise ValueError(f"{folder.name} has no readable metadata")
    return found


def _compare(wanted, stored, folder: Path):
    # Orbax would cast another dtype without a word.
    difference = tree.diff(wanted, stored)
    if difference:
        raise CheckpointError(f"the checkpoint is of another model or optimizer:\n{difference}",
                              where=str(folder),
                              fix="use the config it was made with, or another workdir")


# ---- a training run -------------------------------------------------------------------------


@dataclasses.dataclass
class _Retention(checkpoint_managers.PreservationPolicy):
    """The newest `keep` steps, and the one of the best score."""

    keep: int
    sign: int
    scores: dict[int, float | None]

    def should_preserve(self, checkpoints, *, context):
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = set(sorted(steps)[-self.keep:])
        scored = [step for step in steps if self.scores.get(step) is not None]
        if scored:
            kept.add(max(scored, key=lambda step: (self.sign * self.scores[step], step)))
        return [step in kept for step in steps]


class Checkpoints:
    """The checkpoints of one run. Every process makes one and calls all of its methods.

    keep: how many of the newest stay, beside the one of the best score (best_mode "max" | "min").
    """

    def __init__(self, directory: Path, *, keep: int, best_mode: Literal["max", "min"] = "max"):
        self.directory = Path(directory).absolute()
        self._keep, self._mode = keep, best_mode
        self._lazy: ocp.CheckpointManager | None = None
        self._scores: dict[int, float | None] = {}
        self._saving: int | None = None

    @property
    def _manager(self) -> ocp.CheckpointManager:
        """Orbax's manager; made after `restore` has put the folder in order, for it lists it."""
        if self._lazy is None:
            self._scores.update({s: _score(self.directory / str(s))[0]
                                 for s in manifest.steps(self.directory)})
            policy = _Retention(self._keep, 1 if self._mode == "max" else -1, self._scores)
            _hush_failed_writes()
            with self._mended():
                self._lazy = ocp.CheckpointManager(
                    self.directory, item_names=ITEMS, options=ocp.CheckpointManagerOptions(
                        temporary_path_class=atomicity.CommitFileTemporaryPath,
                        preservation_policy=policy,
                        async_options=ocp.AsyncOptions(
                            post_finalization_callback=self._seal,
                            # Otherwise a folder that cannot be made leaves threads behind that
                            # keep the process from ending for five minutes.
                            create_directories_asynchronously=False)))
        return self._lazy

    def _seal(self):
        # Orbax calls this when all files are there and before it writes the marker, so that a
        # committed step always has its manifest.
        if jax.process_index() == 0:
            manifest.sign(self.directory / str(self._saving))

    def restore(self, state: TrainState) -> tuple[TrainState, dict, int] | None:
        """(state, config item, step) of the newest good step, or None where there is none yet.

        state: abstract, with the shardings to restore to, of any topology. Newer steps that are
        damaged are named in warnings and moved to `damaged/` beside the folder. Called before
        anything is saved. Raises CheckpointError if there are steps and none is good, or the trees
        differ.
        """
        step = _agree(self._put_in_order)
        if step is None:
            return None
        folder = self.directory / str(step)
        with _reading(folder):
            with ocp.StandardCheckpointer() as reader:
                for item, wanted in (("weights", _weights(state)), ("training", _training(state))):
                    _compare(wanted, _stored(reader, folder / item), folder)
            found = self._manager.restore(step, args=ocp.args.Composite(
                weights=ocp.args.StandardRestore(_weights(state)),
                training=ocp.args.StandardRestore(_training(state))))
            return (TrainState(**found["training"], **found["weights"]), _read_json_item(folder),
                    step)

    def _put_in_order(self) -> int | None:
        """The newest good step; those above it are moved away, what killed saves left removed."""
        steps = manifest.steps(self.directory)
        step, complaints = manifest.first_good(self.directory, steps)
        _warn(self.directory, complaints)
        if steps and step is None:
            raise _none_good(self.directory, complaints)
        folders = self.directory.iterdir() if self.directory.is_dir() else ()
        for folder in sorted(folder for folder in folders if folder.is_dir()):
            number = manifest.number(folder)
            if number in steps and number > step:
                aside = self.directory.parent / "damaged" / folder.name
                shutil.rmtree(aside, ignore_errors=True)
                aside.parent.mkdir(exist_ok=True)
                shutil.move(folder, aside)
                logging.warning("moved to %s", aside)
            elif number is None or (folder / manifest.MARKER).is_file():
                continue
            elif manifest.verify(folder) is None:
                (folder / manifest.MARKER).touch()  # killed before it, or a copy that lost it
            else:
                logging.warning("removing an unfinished checkpoint: %s", folder)
                shutil.rmtree(folder)
        return step

    def save(self, step: int, state: TrainState, config: Mapping[str, Any],
             score: float | None = None):
        """Saves in the background, after what is being saved; a step that is there stays.

        config: JSON-able. Raises EnvironmentFailure if the disk has no room, or if the save
        before this one failed.
        """
        self.wait()
        if step in manifest.steps(self.directory):
            return
        self._check_room(state)
        if score is not None and not math.isfinite(score):
            score = None  # no order among them
        self._saving, self._scores[step] = step, score
        item = {**config, "score": score, "best_mode": self._mode}
        with self._mended():
            self._manager.save(step, force=True, args=ocp.args.Composite(
                weights=ocp.args.StandardSave(_weights(state)),
                training=ocp.args.StandardSave(_training(state)),
                config=ocp.args.JsonSave(item)))

    def _check_room(self, state: TrainState):
        needed = int(tree.size_bytes((_weights(state), _training(state))) * MARGIN) + (1 << 16)
        place = self.directory if self.directory.is_dir() else self.directory.parent
        free = shutil.disk_usage(place).free
        if _agree(lambda: int(free < needed)):
            raise self._not_written(f"{needed:,} bytes are needed, {free:,} are free")

    def _not_written(self, why: str) -> EnvironmentFailure:
        good = self.latest()
        kept = "nothing is saved yet" if good is None else f"step {good} is saved and good"
        return EnvironmentFailure(f"the checkpoint cannot be written: {why}",
                                  where=str(self.directory),
                                  fix=f"free some space and run the same line again; {kept}")

    @contextlib.contextmanager
    def _mended(self) -> Iterator[None]:
        """Turns what the file system refuses into an EnvironmentFailure, and removes the rest."""
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
        folder = self.directory / str(self._saving)
        if jax.process_index() == 0 and not (folder / manifest.MARKER).exists():
            shutil.rmtree(folder, ignore_errors=True)

    def wait(self):
        """Until everything is saved. Raises EnvironmentFailure if it cannot be."""
        if self._lazy is not None:
            with self._mended():
                self._lazy.wait_until_finished()
                self._lazy.check_for_errors()

    def latest(self) -> int | None:
        """The newest committed step."""
        return next(iter(manifest.steps(self.directory)), None)

    def reached_preemption(self, step: int) -> bool:
        """Whether the processes have agreed to stop behind this step (jax.distributed only)."""
        return jax.process_count() > 1 and self._manager.reached_preemption(step)

    def close(self):
        """Waits, and lets go. Raises EnvironmentFailure if what was being saved cannot be."""
        if self._lazy is not None:
            with self._mended():
                self._lazy.close()
            self._remove_unfinished()  # threads of a failed save may have written on
