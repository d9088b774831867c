"""The log of a run: rows in metrics.jsonl, TensorBoard, W&B, lines or a bar in the terminal.

Only process 0 writes. A logger never ends a run: what cannot be written is reported once.
"""

import collections
import contextlib
import functools
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import rich.console
import rich.progress

from imgcls_jax import config as configs
from imgcls_jax.errors import printable


class Log:
    """Opened on a workdir; rows later than `step`, left by a run that was killed, are dropped.

    wandb: a project of Weights & Biases that rows also go to; it needs the `wandb` extra.
    """

    def __init__(self, workdir: Path, *, step: int, total: int, quiet: bool = False,
                 wandb: str | None = None, config: Mapping | None = None):
        self.workdir, self.total = workdir, total
        self.main = jax.process_index() == 0
        self.console = rich.console.Console(stderr=False, highlight=False, soft_wrap=True)
        self._bar: rich.progress.Progress | None = None
        self._task = rich.progress.TaskID(0)
        self._tensorboard: Any = None
        self._wandb: Any = None
        self._warned: set[str] = set()
        self.quiet = quiet or not self.main
        if self.main:
            for name, keep in (("metrics.jsonl", lambda row: row["step"] <= step),
                               ("bad_samples.jsonl", lambda row: True)):
                self._guard(name, functools.partial(_tidy, workdir / name, keep))
        self._bad: set[tuple] = set()
        with contextlib.suppress(OSError):
            self._bad |= {_key(row) for _, row in read_rows(workdir / "bad_samples.jsonl")}
        if self.main:
            if wandb:
                self._guard("wandb", lambda: self._open_wandb(wandb, config))
        if self.console.is_terminal and not self.quiet:
            self._bar = rich.progress.Progress(
                "{task.description}", rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(), console=self.console, transient=True)
            self._task = self._bar.add_task("steps", total=total, completed=step)
            self._bar.start()

    def _open_tensorboard(self):
        # clu's writer uses TensorFlow, which would take the accelerators: it is imported with the
        # first row, after the input has kept TensorFlow off them.
        from clu import metric_writers

        self._tensorboard = metric_writers.AsyncWriter(
            metric_writers.SummaryWriter(str(self.workdir / "tb")))

    def _open_wandb(self, project: str, config: Mapping | None):
        import wandb

        # The run is named after the folder: a resumed run continues under the same name.
        self._wandb = wandb.init(project=project, dir=str(self.workdir), config=dict(config or {}),
                                 id=self.workdir.resolve().name, resume="allow")

    def _guard(self, what: str, write):
        """Runs `write`; a failure is reported once and does not end the run."""
        if not self.main:
            return
        try:
            write()
        except Exception as error:  # TensorFlow's errors share no narrower type
            if what not in self._warned:
                self._warned.add(what)
                with contextlib.suppress(OSError):
                    print(f"warning: {what} cannot be written: {error}", file=sys.stderr)

    def row(self, step: int, values: Mapping):
        """One row: appended to metrics.jsonl, numbers also to TensorBoard and W&B."""
        row = {"step": step, **values}
        self._guard("metrics.jsonl", lambda: _append(self.workdir / "metrics.jsonl",
                                                     json.dumps(row)))
        scalars = {k: v for k, v in values.items() if isinstance(v, int | float)}
        if "tb" not in self._warned:
            self._guard("tb", lambda: self._plot(step, scalars))
        if self._wandb:
            self._guard("wandb", lambda: self._wandb.log(scalars, step=step))

    def _plot(self, step: int, scalars: Mapping):
        if not self._tensorboard:
            self._open_tensorboard()
        self._tensorboard.write_scalars(step, scalars)

    def bad_samples(self, found: collections.deque | None) -> int:
        """Empties `found` into bad_samples.jsonl, each example once; how many are listed in all.

        Every process writes those that it met.
        """
        while found:
            row = found.popleft()
            if _key(row) not in self._bad:
                self._bad.add(_key(row))
                try:
                    _append(self.workdir / "bad_samples.jsonl",
                            configs.to_json(row, indent=None))
                except OSError as error:
                    print(f"warning: bad_samples.jsonl cannot be written: {error}", file=sys.stderr)
        return len(self._bad)

    def line(self, text: str):
        """One line: to the terminal, and to train.log with the time."""
        if not self.main:
            return
        text = printable(text, keep="\n")
        self._guard("train.log", lambda: _append(
            self.workdir / "train.log", f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}"))
        if not self.quiet:
            self._guard("the terminal", lambda: self._print(text))

    def _print(self, text: str):
        try:
            if self._bar:
                self.console.print(text, markup=False)
            else:  # plain: rich would fold long lines in a file or pipe
                print(text, flush=True)
        except OSError:  # the reader of a pipe is gone; what was not written must not fail later
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise

    def progress(self, step: int):
        """Moves the progress bar, if there is one."""
        if self._bar:
            self._bar.update(self._task, completed=step)

    def close(self):
        if self._bar:
            self._bar.stop()
        if self._tensorboard:
            self._guard("tb", self._tensorboard.close)
            self._tensorboard = None
        if self._wandb:
            self._guard("wandb", self._wandb.finish)
            self._wandb = None


def _key(row: Mapping) -> tuple:
    """What a row of bad_samples.jsonl is known by."""
    return json.dumps(row.get("split")), json.dumps(row.get("id"))


def _append(path: Path, line: str):
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _tidy(path: Path, keep: Callable[[dict], bool]):
    """Leaves the rows of a file that `keep` is true of. Lines that are no rows, torn by a crash or
    written by others, are appended to FILE.damaged, with a warning."""
    if not path.exists():
        return
    lines = _lines(path)
    kept = [line for line, row in lines if row is not None and keep(row)]
    foreign = [number for number, (_, row) in enumerate(lines, 1) if row is None]
    if foreign:
        aside = path.with_name(f"{path.name}.damaged")
        with aside.open("ab") as file:
            file.writelines(lines[number - 1][0] + b"\n" for number in foreign)
        warnings.warn(f"{len(foreign)} of the {len(lines)} lines of {path} cannot be read, the "
                      f"first is line {foreign[0]}; they are moved to {aside.name}", stacklevel=4)
    if len(kept) < len(lines) or not path.read_bytes().endswith(b"\n"):
        temporary = path.with_suffix(".tmp")
        temporary.write_bytes(b"".join(line + b"\n" for line in kept))
        temporary.replace(path)


def _lines(path: Path) -> list[tuple[bytes, dict | None]]:
    """Each line that is not blank, and its row; None for one that is none of ours."""
    return [(line, _row(line)) for line in path.read_bytes().split(b"\n") if line.strip()]


def _row(line: bytes) -> dict | None:
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError):  # ValueError: no JSON, or no UTF-8
        return None
    ours = isinstance(row, dict) and (isinstance(row.get("step"), int)
                                      or row.keys() >= {"split", "id"})
    return row if ours else None


def read_rows(path: Path) -> list[tuple[str, dict]]:
    """(line, row) for each row of a metrics.jsonl or bad_samples.jsonl, without lines that are
    none, such as a half-written one."""
    return [(line.decode(), row) for line, row in _lines(path) if row is not None]


def duration(seconds: float) -> str:
    """3725 -> "1h02m", 125 -> "2m05s", 7.3 -> "7s"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
