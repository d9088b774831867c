"""The evaluations of a run: when they are due, what they found, and whether to stop early."""

import concurrent.futures
import math
import time
from collections.abc import Iterable, Mapping

from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import near
from imgcls_jax.training import programs, workdir
from imgcls_jax.training.log import Log, duration
from imgcls_jax.types import Run, TrainState


def best_row(rows: Iterable[Mapping], metric: str, mode: str, *, tie=max) -> Mapping | None:
    """The row of a history with the highest (mode="max") or lowest metric; of equal ones the last
    (tie=max) or the first. One that is not finite is no best: None if all are."""
    sign = 1 if mode == "max" else -1
    finite = [row for row in rows if math.isfinite(row.get(metric, math.nan))]
    top = max((sign * row[metric] for row in finite), default=None)
    equal = [row for row in finite if sign * row[metric] == top]
    return tie(equal, key=lambda row: row["step"]) if equal else None


class Evaluations:
    """history: one dict per evaluated step, {"step": n, "EVALUATION/METRIC": value, ...}."""

    def __init__(self, run: Run, log: Log, history: list[dict]):
        self.run, self.log, self.history = run, log, history
        self._programs: dict[str, concurrent.futures.Future] | None = None

    def due(self, step: int) -> list[str]:
        """The names of the evaluations that belong to this step."""
        return [name for name, evaluation in self.run.evaluations.items()
                if step == self.run.total_steps or step % evaluation.every == 0]

    def missing(self, step: int) -> list[str]:
        """Of those due at a restored step, the ones that a pre-emption left no time for."""
        done = {key.split("/")[0] for key in self._at(step)}
        return [name for name in self.due(step) if name not in done] if step else []

    def start_compiling(self):
        """Compiles their programs in threads; what is compiled already stays."""
        if self._programs is None:
            self._programs = programs.compile_evaluations(self.run)

    def evaluate(self, state: TrainState, step: int, names: list[str]):
        """Runs these evaluations of a state; logs, and adds them to the history."""
        self.start_compiling()
        assert self._programs is not None
        began = time.perf_counter()
        values: dict[str, float] = {}
        for name in names:
            program = (programs.wait(self._programs[name], f"the evaluation {name}",
                                     self.log.line)[0],) if name in self._programs else ()
            found = self.run.evaluations[name].run(state.eval_variables(), *program)
            found = workdir.write_evaluation(self.log.workdir, name, found, step=step,
                                              main=self.log.main)
            values |= {f"{name}/{key}": value for key, value in found.items()}
        self._check_named(names, values)
        if self._at(step):
            self.history[-1] |= values
        else:
            self.history.append({"step": step, **values})
        self.log.row(step, values)
        shown = ", ".join(f"{key} {value:.4f}" for key, value in values.items())
        self.log.line(f"step {step}: {shown} ({duration(time.perf_counter() - began)})")

    def score(self, step: int) -> float | None:
        """The metric of config.checkpoint.best at this step, where it was evaluated."""
        return self._at(step).get(self.run.checkpoint.best)

    def patience_ended(self, step: int) -> str | None:
        """Early stopping: why the run ends here, or None."""
        stop = self.run.stop
        if stop is None:
            return None
        measured = [row for row in self.history if stop.metric in row]
        best = best_row(measured, stop.metric, stop.mode, tie=min)
        since = (best or measured[0])["step"] if measured else step
        if step - since < stop.patience or not measured:
            return None
        change = "risen" if stop.mode == "max" else "fallen"
        said = f"has not {change}" if best else "is not a finite number"
        return f"{stop.metric} {said} since step {since}"

    def _at(self, step: int) -> dict:
        """The last row of the history, if it is of this step."""
        last = self.history[-1] if self.history else {}
        return last if last.get("step") == step else {}

    def _check_named(self, names: list[str], values: Mapping):
        """ConfigError if an evaluation did not give a metric that the config waits for."""
        stop = self.run.stop
        for key, metric in (("checkpoint.best", self.run.checkpoint.best),
                            ("stop.metric", stop.metric if stop else None)):
            if metric and metric.split("/")[0] in names and metric not in values:
                raise ConfigError(f"the evaluation gives no metric {metric!r}",
                                  where=f"config.{key}", fix=near(metric, values))
