"""Where a run begins: at a checkpoint of its workdir or at step 0, and the phases after that."""

import dataclasses
import re
import warnings
from pathlib import Path
from typing import NamedTuple

from imgcls_jax import config as configs
from imgcls_jax import environment
from imgcls_jax.checkpoint.saving import Checkpoints
from imgcls_jax.data import listing
from imgcls_jax.errors import ConfigError
from imgcls_jax.types import Run, TrainState


class Start(NamedTuple):
    """The state to go on from, one dict per evaluated step so far, why the run had stopped, a line
    for each change of the config since, and what the checkpoint knew of the examples, by split."""

    state: TrainState
    history: list[dict]
    stopped: str | None
    changes: list[str]
    examples: dict[str, dict]


class Phase(NamedTuple):
    """Steps `first` to `end` of a run; `run` has the step and the batches of this phase."""

    first: int
    end: int
    run: Run


def restore(run: Run, checkpoints: Checkpoints, directory: Path) -> Start:
    """The newest good step of a workdir, or a fresh start.

    Raises ConfigError if the workdir was trained with a config or classes that differ in what
    may not change, CheckpointError if no checkpoint is good.
    """
    changes: list[str] = []

    def compare(saved: dict):  # before the states are: it names the key that makes them differ
        changes.extend(configs.diff(configs.located(configs.saved(saved["config"])),
                                    configs.located(run.config)))
        _check_same_run(run, changes, tuple(saved["classes"]), directory)

    restored = checkpoints.restore(run.abstract_state, compare)
    if restored is None:
        return Start(run.init(), [], None, [], {})
    state, saved, _ = restored
    examples = saved.get("examples", {})
    # A run that early stopping has ended goes on where the config now asks for something else.
    same_stop = not any(re.match(r"stop\b", line) for line in changes)
    stopped = saved["stopped"] if same_stop else None
    _check_same_examples(run, examples, directory,
                         ended=bool(stopped) or int(state.step) >= run.total_steps)
    _warn_of_versions(saved["versions"])
    if run.constants:
        state = dataclasses.replace(state, constants=run.constants())
    return Start(state, list(saved["history"]), stopped, list(map(_told, changes)), examples)


def _told(change: str) -> str:
    longer = re.match(r"total\b", change)
    return f"changed: config.{change}" + (
        "; the learning rate now follows a schedule of this length" if longer else "")


def _check_same_run(run: Run, changes: list[str], classes: tuple[str, ...], directory: Path):
    same = classes == run.source.classes
    # `only` may leave out classes that were added to the data since.
    safe = "|".join((*configs.SAFE_TO_CHANGE, *(["data.only"] if same else ())))
    refused = [line for line in changes if not re.match(rf"({safe})\b", line)]
    if refused:
        refused.sort(key=lambda line: ".name: " not in line)  # other names have other arguments
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        raise ConfigError(f"the config differs from the one this workdir was trained with: "
                          f"{refused[0]}{more}", where=str(directory),
                          fix="undo the change, or choose another --workdir; only "
                              f"{', '.join(configs.SAFE_TO_CHANGE)} may change on the way")
    if not same:
        raise _other_classes(classes, run.source.classes, directory)


def _other_classes(before: tuple[str, ...], now: tuple[str, ...], directory: Path) -> ConfigError:
    added, missing = ([name for name in one if name not in other]
                      for one, other in ((now, set(before)), (before, set(now))))
    said = ", ".join(f"{len(names):,} {what}, {names[:8]}" for what, names in
                     (("added", added), ("missing", missing)) if names)
    listed = (f'"{before}"' if len(str(before)) < 200 else
              f"LIST, with the classes of {directory / 'labels.json'} in their order,")
    fix = ("restore the missing ones" if missing else
           f"go on without the added ones by --config.data.only={listed}" if added else
           f"list them in the order of {directory / 'labels.json'}")
    return ConfigError("the classes of the data are not those this workdir was trained with: "
                       + (said or "their order differs"), where=str(directory),
                       fix=f"{fix}, or choose another --workdir")


def _check_same_examples(run: Run, before: dict, directory: Path, ended: bool):
    """ConfigError if the data has changed; a warning where the run has ended or may go on so."""
    changes = listing.changes(before, run.examples.read(), directory / "examples",
                              run.source.classes)
    if changes and (ended or run.examples.on_change == "accept"):
        warnings.warn("the data has changed since the checkpoint: " + "; ".join(changes),
                      stacklevel=3)
    elif changes:
        known = (f", and by --config.data.known={directory / 'splits.json'} every image stays in "
                 "the split that it was in" if run.source.files else "")
        raise ConfigError("the data has changed since this workdir was trained: "
                          + "; ".join(changes), where=str(directory),
                          fix="restore the data, choose another --workdir, or go on with the data "
                              f"as it is: --config.data.on_change=accept{known}")


def _warn_of_versions(old: dict[str, str]):
    new = environment.versions()
    changed = [f"{k} {old.get(k)} -> {new.get(k)}" for k in new if old.get(k) != new[k]]
    if changed:
        warnings.warn(f"versions changed since the checkpoint: {', '.join(changed)}; the run goes "
                      "on, but not bit for bit", stacklevel=3)


def phases(run: Run, start: int) -> list[Phase]:
    """The phases that are left at step `start`."""
    starts = [first for first, _ in run.phases] or [0]
    ends = [*starts[1:], run.total_steps]
    runs = [phase for _, phase in run.phases] or [run]
    return [Phase(max(first, start), end, phase)
            for first, end, phase in zip(starts, ends, runs, strict=True) if end > start]
