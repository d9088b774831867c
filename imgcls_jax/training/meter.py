"""Measured between two lines of the log: sums of the steps, images per second, waiting."""

import collections
import contextlib
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from imgcls_jax.errors import Diverged
from imgcls_jax.training.log import Log, duration
from imgcls_jax.types import Run

SLOW_INPUT = 0.2  # share of the time: from here on a line says what to do about it


class Clock:
    """Seconds since the last lap, without those spent in `paused()`."""

    def __init__(self):
        self.running = True
        self._began = time.perf_counter()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        before, self.running = time.perf_counter(), False
        try:
            yield
        finally:
            self._began += time.perf_counter() - before
            self.running = True

    def lap(self) -> float:
        """Seconds since the last lap; the next one begins."""
        now = time.perf_counter()
        taken, self._began = now - self._began, now
        return taken


class Meter:
    """Adds up the Sums of steps, one step late so that the device never waits for the host.

    last_good: () -> the newest step that is saved, for the message where a step is not finite.
    """

    def __init__(self, run: Run, log: Log, last_good: Callable[[], int | None]):
        self.run, self.log, self.clock = run, log, Clock()
        self._last_good = last_good
        self._pending: collections.deque = collections.deque()
        self._sums: collections.Counter = collections.Counter()
        self._ids, self._rate, self._waited = 0, 0.0, 0.0
        self._seconds, self._steps = 0.0, 0  # of this session
        self._hinted = run.begin is not None  # of features, which are read in no time

    def timed(self, batches: Iterable) -> Iterator:
        """The batches; how long the consumer waits for each is counted while the clock runs."""
        iterator = iter(batches)
        while True:
            began = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                if self.clock.running:
                    self._waited += time.perf_counter() - began
            yield batch

    def add(self, step: int, sums: Any, ids: np.ndarray):
        """The Sums of a step that may still run; those of the step before it are fetched."""
        self._pending.append((step, sums, ids))
        if len(self._pending) > 1:
            self._fetch()

    def _fetch(self):
        """Adds the oldest step's Sums; raises Diverged if that step was not finite."""
        step, sums, ids = self._pending.popleft()
        sums = {name: np.asarray(value, np.float64) for name, value in sums.items()}
        self._rate = float(sums.pop("learning_rate"))
        if sums["nonfinite"]:
            good = self._last_good()
            raise Diverged(
                f"step {step} is not finite: loss {sums['loss'] / self.run.batch_size:.4g}, "
                f"gradient norm {sums['gradient_norm']:.4g}, learning rate {self._rate:.3g}",
                where=f"step {step}, examples {', '.join(map(str, ids[:5]))}, ...",
                fix="lower config.schedule.base, set config.clip or look at these examples; "
                    + (f"step {good} is saved and good" if good else "nothing was saved yet"))
        self._sums.update(sums)
        self._ids = zlib.crc32(np.ascontiguousarray(ids).data, self._ids)

    def write(self, step: int):
        """Waits for all steps so far and writes one row and one line about them."""
        while self._pending:
            self._fetch()
        taken, steps = self.clock.lap(), int(self._sums["steps"])
        images = steps * self.run.batch_size
        self._seconds, self._steps = self._seconds + taken, self._steps + steps
        metrics = self._metrics()
        values = {"train/loss": self._sums["loss"] / images,
                  **{f"train/{k}": v for k, v in metrics.items()},
                  "learning_rate": self._rate,
                  "gradient_norm": self._sums["gradient_norm"] / steps,
                  "ids": f"{self._ids:08x}"}
        speed = {"images_per_second": images / taken, "data_wait": min(1.0, self._waited / taken)}
        bad = self.log.bad_samples(self.run.bad_samples)
        self.log.row(step, {**values, **speed, **({"bad_samples": bad} if bad else {})})
        self._say(step, {**values, **speed}, next(iter(metrics.items()), None), bad)
        self._sums.clear()
        self._ids, self._waited = 0, 0.0
        self.clock.lap()

    def _metrics(self) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for metric in self.run.task.metrics.values():
            if metric.update:  # arrays, such as a confusion matrix, are for evaluations
                metrics |= {key: value for key, value in metric.finish(self._sums).items()
                            if not isinstance(value, np.ndarray)}
        return metrics

    def _say(self, step: int, values: dict, metric: tuple[str, float] | None, bad: int):
        run = self.run
        epochs = run.total_steps / run.steps_per_epoch
        left = (run.total_steps - step) * self._seconds / self._steps
        shown = f" {metric[0]} {metric[1]:.1%}" if metric else ""
        self.log.line(
            f"step {step}/{run.total_steps} (epoch {step / run.steps_per_epoch:.1f}/{epochs:.3g}) "
            f"loss {values['train/loss']:.4f}{shown} lr {values['learning_rate']:.2e} "
            f"gnorm {values['gradient_norm']:.2f} | {values['images_per_second']:,.0f} images/s, "
            f"waiting for data {values['data_wait']:.0%} | ETA {duration(left)}"
            + (f" | {bad} bad examples left out, see bad_samples.jsonl" if bad else ""))
        if values["data_wait"] > SLOW_INPUT and not self._hinted:
            self._hinted = True
            self.log.line(f"the step waits for data more than {SLOW_INPUT:.0%} of the time: imgcls "
                          "bench input tells what the input can do, imgcls data prepare "
                          "--short_side=288 makes decoding cheaper")
