"""The log of a run: rows in metrics.jsonl, TensorBoard, W&B, lines or a bar in the terminal.

Only process 0 writes. A logger never ends a run: what cannot be written is reported once.
"""

import collections
import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import rich.console
import rich.progress

from imgcls_jax import config as configs


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
        listed = workdir / "bad_samples.jsonl"
        self._bad = {(row["split"], row["id"]) for _, row in read_rows(listed)} if (
            listed.exists()) else set()
        self.quiet = quiet or not self.main
        if self.main:
            self._guard("metrics.jsonl", lambda: _truncate(workdir / "metrics.jsonl", step))
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
            if (row["split"], row["id"]) not in self._bad:
                self._bad.add((row["split"], row["id"]))
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


def _append(path: Path, line: str):
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _truncate(path: Path, step: int):
    """Keeps the whole rows of steps up to `step`."""
    if path.exists():
        kept = [line for line, row in read_rows(path) if row["step"] <= step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        temporary.replace(path)


def read_rows(path: Path) -> list[tuple[str, dict]]:
    """(line, row) for each whole row of a metrics.jsonl; a half-written last line is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append((line, json.loads(line)))
        except json.JSONDecodeError:
            continue
    return rows


def duration(seconds: float) -> str:
    """3725 -> "1h02m", 125 -> "2m05s", 7.3 -> "7s"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
