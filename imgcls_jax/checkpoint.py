"""Checkpoints: save, restore, verify. Orbax writes the arrays; nobody else imports it.

A step is one folder and one commit of three items: `weights` (params, model_state, ema),
`training` (step, opt_state) and `config` (JSON, with the score). Orbax restores flipped bits
silently and takes an empty folder for a step, so that a commit here is a marker file, and before it
is written the digest of every file goes into a manifest, which is compared when restoring.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
import shutil
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

from imgcls_jax import tree
from imgcls_jax.errors import CheckpointError, EnvironmentFailure
from imgcls_jax.types import TrainState

ITEMS = ("weights", "training", "config")
MARKER = "commit_success.txt"  # Orbax's
MANIFEST = "manifest.json"
# Orbax stamps this one with the time after the commit; nothing of ours is read from it.
UNSIGNED = (MANIFEST, MARKER, "_CHECKPOINT_METADATA")
MARGIN = 1.1  # a step takes a little more room than its arrays

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells of every item of every save


# ---- one step's folder ----------------------------------------------------------------------


def _digests(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in UNSIGNED:
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _own_digest(digests: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def _sign(folder: Path):
    """Writes the manifest, whole and on the disk."""
    digests = _digests(folder)
    temporary = folder / f".{MANIFEST}.tmp"
    with temporary.open("w") as file:
        json.dump({"sha256": digests, "own": _own_digest(digests)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MANIFEST)


def verify(folder: Path) -> str | None:
    """What is wrong with a step's folder: None if nothing; "no manifest" if it cannot be known."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        wanted = manifest["sha256"]
        if manifest["own"] != _own_digest(wanted):
            raise ValueError
    except FileNotFoundError:
        return "no manifest"
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is damaged"
    found = _digests(folder)
    for name, digest in wanted.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != digest:
            return f"{name} is damaged"
    return None


def _steps(directory: Path) -> list[int]:
    """Committed steps, the newest first."""
    if not directory.is_dir():
        return []
    names = [p.name for p in directory.iterdir() if p.name.isdigit() and (p / MARKER).is_file()]
    return sorted(map(int, names), reverse=True)


def _read_json_item(folder: Path) -> dict:
    return json.loads((folder / "config" / "metadata").read_text())


def _score(folder: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        return _read_json_item(folder).get("score")
    return None


def _newest_good(directory: Path, steps: list[int]) -> tuple[int | None, list[str]]:
    """(the first good one of the steps, what is wrong with those before it).

    A step without a manifest, such as one copied by hand, is used where none is verified.
    """
    unknown, complaints = None, []
    for step in steps:
        problem = verify(directory / str(step))
        if problem is None:
            return step, complaints
        if problem == "no manifest" and unknown is None:
            unknown = step
        complaints.append(f"checkpoint {step} is not used: {problem}")
    if unknown is not None:
        complaints.append(f"checkpoint {unknown} has no manifest and is used unverified: there is "
                          "no verified one")
    return unknown, complaints


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
        steps = _steps(directory)
        if not steps:
            raise CheckpointError("there is no checkpoint", where=str(directory),
                                  fix="name the workdir of a run that has saved one")
        if step == "best":
            scores = {s: _read_json_item(directory / str(s)) for s in steps}
            sign = {s: 1 if v.get("best_mode", "max") == "max" else -1 for s, v in scores.items()}
            scored = [s for s in steps if scores[s].get("score") is not None]
            steps = sorted(scored, key=lambda s: (-sign[s] * scores[s]["score"], -s))[:1]
            if not steps:
                raise CheckpointError("no checkpoint has a score", where=str(directory),
                                      fix="set config.checkpoint.best in training, or use latest")
        elif step != "latest":
            if not str(step).isdigit() or int(step) not in steps:
                raise CheckpointError(f"there is no checkpoint {step!r}", where=str(directory),
                                      fix=f"use one of {sorted(steps)}, 'latest' or 'best'")
            steps = [int(step)]
        found, complaints = _newest_good(directory, steps)
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
    with ocp.StandardCheckpointer() as reader:
        stored = _stored(reader, folder / "weights")
        if state is not None:
            _compare(_weights(state), stored, folder)
            target = _weights(state)
        else:
            target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), stored)
        return reader.restore(folder / "weights", target), saved, found


def _weights(state: TrainState) -> dict:
    return {"params": state.params, "model_state": state.model_state, "ema": state.ema}


def _training(state: TrainState) -> dict:
    return {"step": state.step, "opt_state": state.opt_state}


def _stored(reader, folder: Path):
    """Shapes and dtypes of an item on the disk."""
    found = reader.metadata(folder)
    found = getattr(found, "item_metadata", found)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
                        getattr(found, "tree", found))


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
            self._scores.update({s: _score(self.directory / str(s))
                                 for s in _steps(self.directory)})
            policy = _Retention(self._keep, 1 if self._mode == "max" else -1, self._scores)
            with self._mended():
                self._lazy = ocp.CheckpointManager(
                    self.directory, item_names=ITEMS, options=ocp.CheckpointManagerOptions(
                        temporary_path_class=atomicity.CommitFileTemporaryPath,
                        preservation_policy=policy,
                        async_options=ocp.AsyncOptions(post_finalization_callback=self._seal)))
        return self._lazy

    def _seal(self):
        # Orbax calls this when all files are there and before it writes the marker, so that a
        # committed step always has its manifest.
        if jax.process_index() == 0:
            _sign(self.directory / str(self._saving))

    def restore(self, state: TrainState) -> tuple[TrainState, dict, int] | None:
        """(state, config item, step) of the newest good step, or None where there is none yet.

        state: abstract, with the shardings to restore to, of any topology. Newer steps that are
        damaged are named in warnings and moved to `damaged/` beside the folder. Raises
        CheckpointError if there are steps and none is good, or the trees differ.
        """
        step = _agree(self._put_in_order)
        if step is None:
            return None
        folder = self.directory / str(step)
        with ocp.StandardCheckpointer() as reader:
            for item, wanted in (("weights", _weights(state)), ("training", _training(state))):
                _compare(wanted, _stored(reader, folder / item), folder)
        found = self._manager.restore(step, args=ocp.args.Composite(
            weights=ocp.args.StandardRestore(_weights(state)),
            training=ocp.args.StandardRestore(_training(state))))
        state = TrainState(**found["training"], **found["weights"])
        return state, _read_json_item(folder), step

    def _put_in_order(self) -> int | None:
        """Removes what killed saves left; the newest good step, those above it moved away."""
        for folder in self.directory.iterdir() if self.directory.is_dir() else ():
            if not folder.is_dir() or (folder / MARKER).is_file():
                continue
            if folder.name.isdigit() and verify(folder) is None:
                (folder / MARKER).touch()  # whole, as a copy that lost its marker
            elif folder.name.isdigit() or "orbax-checkpoint-tmp" in folder.name:
                logging.warning("removing an unfinished checkpoint: %s", folder)
                shutil.rmtree(folder)
        steps = _steps(self.directory)
        step, complaints = _newest_good(self.directory, steps)
        _warn(self.directory, complaints)
        if steps and step is None:
            raise _none_good(self.directory, complaints)
        for bad in (s for s in steps if s > step):
            aside = self.directory.parent / "damaged" / str(bad)
            shutil.rmtree(aside, ignore_errors=True)
            aside.parent.mkdir(exist_ok=True)
            shutil.move(self.directory / str(bad), aside)
        return step

    def save(self, step: int, state: TrainState, config: Mapping[str, Any],
             score: float | None = None):
        """Saves in the background, after what is being saved; a step that is there stays.

        config: JSON-able. Raises EnvironmentFailure if the disk has no room, or if the save
        before this one failed.
        """
        self.wait()
        if step in _steps(self.directory):
            return
        self._check_room(state)
        self._saving, self._scores[step] = step, score
        item = {**config, "score": score, "best_mode": self._mode}
        with self._mended():
            self._manager.save(step, force=True, args=ocp.args.Composite(
                weights=ocp.args.StandardSave(_weights(state)),
                training=ocp.args.StandardSave(_training(state)),
                config=ocp.args.JsonSave(item)))

    def _check_room(self, state: TrainState):
        needed = int(tree.size_bytes(state) * MARGIN) + (1 << 16)
        place = self.directory if self.directory.is_dir() else self.directory.parent
        free = shutil.disk_usage(place).free
        if jax.process_index() == 0 and free < needed:
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
            unfinished = self.directory / str(self._saving)
            if jax.process_index() == 0 and not (unfinished / MARKER).exists():
                shutil.rmtree(unfinished, ignore_errors=True)
            raise self._not_written(os.strerror(code)) from error

    def wait(self):
        """Until everything is saved. Raises EnvironmentFailure if it cannot be."""
        if self._lazy is not None:
            with self._mended():
                self._lazy.wait_until_finished()
                self._lazy.check_for_errors()

    def latest(self) -> int | None:
        """The newest committed step."""
        return next(iter(_steps(self.directory)), None)

    def reached_preemption(self, step: int) -> bool:
        """Whether the processes have agreed to stop behind this step (jax.distributed only)."""
        return jax.process_count() > 1 and self._manager.reached_preemption(step)

    def close(self):
        if self._lazy is not None:
            self._lazy.close()
