"""Reading checkpoints: which step is good, what it holds, and its weights without the rest."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from imgcls_jax import tree, untrusted
from imgcls_jax.checkpoint import digests
from imgcls_jax.errors import CheckpointError, Failure
from imgcls_jax.types import TrainState

ITEMS = ("weights", "training", "config")

# Orbax logs every item of every save, and an error with the tracebacks of all its threads; the
# exception that it raises says enough.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)


def choose(directory: Path, step: int | str = "latest") -> int:
    """The good step that `step` means: a number, "latest" or "best". Raises CheckpointError."""
    directory = Path(directory).absolute()

    def chosen():
        steps = digests.steps(directory)
        if not steps:
            for folder in sorted(directory.glob("*")):
                if digests.number(folder) not in (None, digests.unfinished(directory)):
                    check_unmarked(folder)
            raise CheckpointError("there is no checkpoint", where=str(directory),
                                  fix="name the workdir of a run that has saved one")
        if step == "best":
            scores = [(*score_of(directory / str(s)), s) for s in steps]
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
        found, complaints = digests.first_good(directory, steps)
        warn(directory, complaints)
        if found is None:
            raise none_good(directory, complaints)
        return found

    found = agree(chosen)
    assert found is not None  # else `chosen` has raised
    return found


def read_config(directory: Path, step: int | str = "latest") -> tuple[dict, int]:
    """(the `config` item of a good step, its number)."""
    found = choose(directory, step)
    folder = Path(directory).absolute() / str(found)
    with explaining(folder):
        item = read_item(folder)
        if not isinstance(item, dict) or not isinstance(item.get("config"), dict):
            raise ValueError("its item `config` holds no config")
    return item, found


def restore_weights(directory: Path, step: int | str = "latest",
                    state: TrainState | None = None) -> tuple[dict, dict, int]:
    """({"params", "model_state", "ema"}, config item, step) without the optimizer's state.

    state: abstract, with shardings, and compared strictly; without it the arrays are numpy.
    """
    saved, found = read_config(directory, step)
    folder = Path(directory).absolute() / str(found)
    with explaining(folder), ocp.StandardCheckpointer() as reader:
        stored = stored_shapes(reader, folder / "weights")
        if state is not None:
            compare(weights_item(state), stored, folder)
            target = weights_item(state)
        else:
            target = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), stored)
        return reader.restore(folder / "weights", target), saved, found


@contextlib.contextmanager
def explaining(folder: Path) -> Iterator[None]:
    """Turns what Orbax raises for a folder that it cannot read into a CheckpointError."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{error}".strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"the checkpoint cannot be read: {reason[0][:300]}",
                              where=str(folder),
                              fix="restore its files from a copy, or move it away to use the one "
                                  "before it") from error


def weights_item(state: TrainState) -> dict:
    return {"params": state.params, "model_state": state.model_state, "ema": state.ema}


def training_item(state: TrainState) -> dict:
    return {"step": state.step, "opt_state": state.opt_state}


def stored_shapes(reader, folder: Path):
    """Shapes and dtypes of an item on the disk."""
    found = reader.metadata(folder)
    found = getattr(found, "item_metadata", found)
    found = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
                         getattr(found, "tree", found))
    if not jax.tree.leaves(found):
        raise ValueError(f"{folder.name} has no readable metadata")
    return found


def compare(wanted, stored, folder: Path):
    # Orbax would cast to another dtype silently.
    difference = tree.diff(wanted, stored)
    if difference:
        raise CheckpointError(f"the checkpoint is from another model or optimizer:\n{difference}",
                              where=str(folder),
                              fix="use the config it was saved with, or another workdir")


# ---- for both reading and saving ------------------------------------------------------------


def read_item(folder: Path) -> dict:
    return untrusted.from_json(untrusted.read(folder / "config" / "metadata"))


def check_unmarked(folder: Path):
    """CheckpointError if a folder without marker and digest file has what Orbax writes for a step:
    these small files are lost where a filter copies, and were never there if others wrote it."""
    if any((folder / name).exists() for name in (*ITEMS, "_CHECKPOINT_METADATA")):
        raise CheckpointError(
            f"the checkpoint {folder.name} has neither {digests.MARKER} nor {digests.MANIFEST}",
            where=str(folder), fix="if it is complete, copy these files from the original, or make "
                                   f"an empty file {digests.MARKER} in it; if not, move it away")


def score_of(folder: Path) -> tuple[float | None, int]:
    """(score, 1 where the highest is best, else -1) of a step; None as score if it is damaged."""
    with contextlib.suppress(OSError, ValueError):
        item = read_item(folder)
        return item.get("score"), -1 if item.get("best_mode") == "min" else 1
    return None, 1


def agree(choose) -> int | None:
    """What `choose()` returns on process 0, given to all processes; so is its Failure."""
    if jax.process_count() == 1:
        return choose()
    found, error = None, None
    if jax.process_index() == 0:
        try:
            found = choose()
        except Failure as raised:
            error = raised
    code = -2 if error else -1 if found is None else found
    code = int(multihost_utils.broadcast_one_to_all(np.int32(code)))
    if code == -2:
        raise error or CheckpointError("process 0 found no good checkpoint")
    return None if code == -1 else code


def warn(directory: Path, complaints: list[str]):
    for complaint in complaints:
        warnings.warn(f"{complaint} ({directory})", stacklevel=4)


def none_good(directory: Path, complaints: list[str]) -> CheckpointError:
    more = f"; and {len(complaints) - 2} more" if len(complaints) > 2 else ""
    return CheckpointError("all checkpoints are damaged: " + "; ".join(complaints[:2]) + more,
                           where=str(directory),
                           fix="restore the files from a copy, or start in a new workdir")
