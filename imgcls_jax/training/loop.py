"""The loop: restore or start, step, evaluate, save, stop. What a step does is not its business."""

import collections
import functools
import re
import signal
import statistics
import time
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from imgcls_jax import config as configs
from imgcls_jax import environment, tree
from imgcls_jax.checkpoint.saving import Checkpoints
from imgcls_jax.errors import ConfigError, Diverged, Preempted
from imgcls_jax.parallel import transfer
from imgcls_jax.registry import near
from imgcls_jax.training import programs, workdir
from imgcls_jax.training.log import Log, duration, read_rows
from imgcls_jax.types import Run, TrainState

SLOW_INPUT = 0.2  # share of the time: from here on a line says what to do about it


def train(run: Run, directory: Path, *, name: str = "", quiet: bool = False) -> dict:
    """Trains `run` to its end in `directory`, from the newest good checkpoint there.

    Returns what results.json holds. Raises Preempted (state saved) on SIGTERM or Ctrl-C,
    Diverged at a step that is not finite, and the Failures of its parts.
    """
    main = jax.process_index() == 0
    lock = workdir.open_workdir(directory, main=main)
    keep = run.checkpoint
    checkpoints = Checkpoints(directory / "checkpoints", keep=keep["keep"],
                              best_mode=keep["best_mode"])
    log = None
    try:
        with Signals() as signals:
            compiling = None if run.phases else programs.compile_step(run)
            state, history, stopped = _restore(run, checkpoints, directory)
            start = int(state.step)
            if run.phases and start < run.total_steps:  # which one, only the step tells
                compiling = programs.compile_step(phases(run, start)[0][2])
            log = Log(directory, step=start, total=run.total_steps, quiet=quiet,
                      wandb=run.log["wandb"], config=run.config)
            log.line(_headline(run, directory, start, name))
            if main:
                _describe(run, directory)
            loop = _Loop(run, checkpoints, log, signals, history)
            stopped = stopped or loop.catch_up(state, start)
            going_on = not stopped and start < run.total_steps
            if going_on:
                stopped = loop.run_steps(state, start, compiling)
            checkpoints.wait()
            results = _results(run, loop.history, stopped, directory)
            if main:
                workdir.write_json(directory / "results.json", results)
                if going_on or not (directory / "record.json").exists():
                    workdir.write_json(directory / "record.json",
                                       record(run, directory, name, results))
            log.line(_summary(results))
            return results
    finally:
        if log:
            log.close()
        checkpoints.close()
        if lock:
            lock.release()


# ---- before the first step ------------------------------------------------------------------


def _restore(run: Run, checkpoints: Checkpoints, directory: Path):
    """(state, history of evaluations, why it had stopped) of the newest good step, or a start."""
    restored = checkpoints.restore(run.abstract_state)
    if restored is None:
        return run.init(), [], None
    state, saved, _ = restored
    changes = configs.diff(configs.plain(saved["config"]), run.config)
    refused = [line for line in changes
               if not re.match(rf"({'|'.join(configs.SAFE_TO_CHANGE)})\b", line)]
    if refused:
        more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
        raise ConfigError(f"the config differs from the one this workdir was trained with: "
                          f"{refused[0]}{more}", where=str(directory),
                          fix="undo the change, or choose another --workdir; only "
                              f"{', '.join(configs.SAFE_TO_CHANGE)} may change on the way")
    if tuple(saved["classes"]) != run.source.classes:
        raise ConfigError("the classes of the data are not those this workdir was trained with",
                          where=str(directory),
                          fix=f"compare {run.source.name} with {directory / 'labels.json'}")
    old, new = saved["versions"], environment.versions()
    changed = [f"{k} {old.get(k)} -> {new.get(k)}" for k in new if old.get(k) != new[k]]
    if changed:
        warnings.warn(f"versions changed since the checkpoint: {', '.join(changed)}; the run goes "
                      "on, but not bit for bit", stacklevel=2)
    # A run that early stopping has ended goes on where the config now asks for something else.
    asked_then = configs.plain(saved["config"])["stop"]
    if run.constants:
        state = state.replace(constants=run.constants())
    return state, list(saved["history"]), (
        saved["stopped"] if asked_then == run.config["stop"] else None)


def _headline(run: Run, directory: Path, start: int, name: str) -> str:
    count = tree.count(run.abstract_state.params)
    devices = run.mesh.devices.size
    return (f"{name or run.spec.name}: {run.spec.name}, {count:,} parameters, {run.source.name}, "
            f"{run.total_steps} steps of {run.batch_size} on {devices} "
            f"{jax.devices()[0].device_kind} device{'s' * (devices > 1)}, in {directory}"
            + (f", going on from step {start}" if start else ""))


def _describe(run: Run, directory: Path):
    workdir.write_json(directory / "config.json", run.config)
    workdir.write_json(directory / "env.json", environment.environment())
    workdir.write_json(directory / "labels.json", run.source.classes)
    if run.source.files:
        workdir.write_json(directory / "splits.json", run.source.files)


def phases(run: Run, start: int) -> list[tuple[int, int, Run]]:
    """(first step, last step, what runs) of the phases that are left at a step."""
    starts = [first for first, _ in run.phases] or [0]
    ends = [*starts[1:], run.total_steps]
    runs = [phase for _, phase in run.phases] or [run]
    return [(max(first, start), last, phase)
            for first, last, phase in zip(starts, ends, runs, strict=True) if last > start]


class Signals:
    """The first SIGTERM or Ctrl-C asks the loop to save and stop, the second ends it at once.

    With several processes SIGTERM is JAX's, which makes all agree on the step to stop at; Ctrl-C
    is passed on as one, for it comes to each process at another step, or to one alone.
    """

    def __init__(self):
        self.asked: str | None = None
        self._old: dict = {}

    def __enter__(self):
        handlers = ({signal.SIGINT: self._handle, signal.SIGTERM: self._handle}
                    if jax.process_count() == 1 else {signal.SIGINT: self._pass_on})
        try:
            for kind, handler in handlers.items():
                self._old[kind] = signal.signal(kind, handler)
        except ValueError:  # not in the main thread, as in a notebook's worker: no handlers
            pass
        return self

    def _handle(self, number, frame):
        if self.asked:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.asked = signal.Signals(number).name

    def _pass_on(self, number, frame):
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)

    def __exit__(self, *_):
        for kind, handler in self._old.items():  # None is one that Python did not install
            signal.signal(kind, signal.SIG_DFL if handler is None else handler)


# ---- the loop -------------------------------------------------------------------------------


class _Loop:
    """What the loop counts between two lines of the log, and the evaluations so far."""

    def __init__(self, run, checkpoints, log, signals, history):
        self.run, self.checkpoints, self.log, self.signals = run, checkpoints, log, signals
        self.history = history  # one dict per evaluated step
        self._sums = collections.Counter()
        self._ids, self._rate = 0, 0.0  # of the last step that was fetched
        self._pending: collections.deque = collections.deque()
        self._since = self._spent = 0.0
        self._session_steps = 0
        self._hinted, self._program = False, None
        self._bad = {(row["split"], row["id"]) for _, row in read_rows(self._bad_path)} if (
            self._bad_path.exists()) else set()

    @property
    def _bad_path(self) -> Path:
        return self.log.workdir / "bad_samples.jsonl"

    def _list_bad_samples(self) -> int:
        """Writes down what has been left out since; how much there is in all."""
        queue = self.run.bad_samples
        while queue:
            row = queue.popleft()
            if (row["split"], row["id"]) not in self._bad:
                self._bad.add((row["split"], row["id"]))
                self.log.bad_sample(row)
        return len(self._bad)

    def run_steps(self, state: TrainState, start: int, compiling) -> str | None:
        """Steps from `start` to the end, or until told; returns why it stopped early, or None."""
        step, coming = start, phases(self.run, start)
        while coming:
            (first, end, phase), *coming = coming
            if first > start:
                height, width = phase.abstract_batch["image"].shape[1:3]
                self.log.line(f"step {first}: the next phase, images of {height} x {width}")

            def following(coming=coming, phase=phase, compiling=compiling):
                """The program of the next phase, compiled beside the steps of this one."""
                if not coming or coming[0][2].step is phase.step:
                    return compiling
                return programs.compile_step(coming[0][2])

            state, step, stopped, compiling = self._run_phase(phase, state, step, start, end,
                                                              compiling, following)
            if stopped:
                return stopped
        return None

    def _run_phase(self, phase: Run, state: TrainState, step: int, start: int, end: int, compiling,
                   following):
        """Steps of one phase up to `end`; (state, step, why it stopped or None, following())."""
        run = self.run
        began = time.perf_counter()
        host = _Timed(phase.batches(step))
        batches = transfer.prefetch(host, phase.put)
        first = next(batches)
        transfer.check_arrays(first[1], phase.abstract_batch, "config.transforms")
        waited = time.perf_counter() - began
        # Beside the step's compilation. Traced sooner, they would delay the first batch, for
        # importing TensorFlow holds Python's lock as tracing does.
        _ = self._evaluating
        step_fn, seconds = compiling.result()
        compiling = following()
        if step_fn is not self._program:
            self.log.line(f"compiled in {sum(seconds.values()):.1f}s, first batch after "
                          f"{waited:.1f}s")
        self._program, host.waited = step_fn, 0.0
        self._since = (time.perf_counter() if step == start else
                       self._since + time.perf_counter() - began)
        batch = first
        while True:
            if self.signals.asked and step == start:
                raise self._preempted(step, saved=start > 0)
            state, sums = step_fn(state, batch[1])
            step += 1
            self._pending.append((step, sums, batch[0]["id"]))
            if len(self._pending) > 1:
                self._fetch()  # the previous step's numbers, while this one runs
            last = step == run.total_steps
            preempted = self.signals.asked or self.checkpoints.reached_preemption(step)
            evaluate = self._due(step)
            save = last or preempted or step % run.checkpoint["every"] == 0
            if evaluate or save or step % run.log["every"] == 0 or step == end:
                self._flush(step, host)
            stopped = None
            if evaluate and not preempted:
                self._evaluate(state, step, evaluate)
                stopped = self._patience_ended(step)
            if save or stopped:
                self._save(state, step, stopped)
            if preempted:
                self.checkpoints.wait()
                raise self._preempted(step, saved=True)
            if step == end or stopped:
                return state, step, stopped, compiling
            self.log.progress(step)
            batch = next(batches)

    @functools.cached_property
    def _evaluating(self) -> dict:
        """Futures of the evaluations' programs, by name."""
        return programs.compile_evaluations(self.run)

    def _due(self, step: int) -> list[str]:
        """The evaluations that belong to this step."""
        return [name for name, evaluation in self.run.evaluations.items()
                if step == self.run.total_steps or step % evaluation.every == 0]

    def catch_up(self, state: TrainState, step: int) -> str | None:
        """Evaluations of a restored step that a pre-emption left no time for; whether to stop."""
        last = self.history[-1] if self.history else {}
        done = {key.split("/")[0] for key in last} if last.get("step") == step else set()
        missing = [name for name in self._due(step) if name not in done] if step else []
        if not missing:
            return None
        self._evaluate(state, step, missing)
        return self._patience_ended(step)

    def _fetch(self):
        """Adds the oldest step's Sums; Diverged if that step was not finite."""
        step, sums, ids = self._pending.popleft()
        sums = {name: np.asarray(value, np.float64) for name, value in sums.items()}
        self._rate = float(sums.pop("learning_rate"))
        if sums["nonfinite"]:
            self.checkpoints.wait()
            good = self.checkpoints.latest()
            raise Diverged(
                f"step {step} is not finite: loss {sums['loss'] / self.run.batch_size:.4g}, "
                f"gradient norm {sums['gradient_norm']:.4g}, learning rate {self._rate:.3g}",
                where=f"step {step}, examples {', '.join(map(str, ids[:5]))}, ...",
                fix="lower config.schedule.base, set config.clip or look at these examples; "
                    + (f"step {good} is saved and good" if good else "nothing was saved yet"))
        self._sums.update(sums)
        self._ids = zlib.crc32(np.ascontiguousarray(ids), self._ids)

    def _flush(self, step: int, host: "_Timed"):
        """Waits for all steps so far and writes one row and one line about them."""
        while self._pending:
            self._fetch()
        now = time.perf_counter()
        taken, steps = now - self._since, int(self._sums["steps"])
        run, images = self.run, steps * self.run.batch_size
        self._spent, self._session_steps = self._spent + taken, self._session_steps + steps
        metrics = {}
        for metric in run.task.metrics.values():
            if metric.update:  # arrays, such as a confusion matrix, are for evaluations
                metrics |= {key: value for key, value in metric.finish(self._sums).items()
                            if not isinstance(value, np.ndarray)}
        values = {"train/loss": self._sums["loss"] / images,
                  **{f"train/{k}": v for k, v in metrics.items()},
                  "learning_rate": self._rate,
                  "gradient_norm": self._sums["gradient_norm"] / steps,
                  "ids": f"{self._ids:08x}"}
        speed = {"images_per_second": images / taken, "data_wait": min(1.0, host.waited / taken)}
        bad = self._list_bad_samples()
        self.log.row(step, {**values, **speed, **({"bad_samples": bad} if bad else {})})
        epochs = run.total_steps / run.steps_per_epoch
        left = (run.total_steps - step) * self._spent / self._session_steps
        first = next(iter(metrics), None)
        shown = f" {first} {metrics[first]:.1%}" if first else ""
        self.log.line(
            f"step {step}/{run.total_steps} (epoch {step / run.steps_per_epoch:.1f}/{epochs:.3g}) "
            f"loss {values['train/loss']:.4f}{shown} lr {values['learning_rate']:.2e} "
            f"gnorm {values['gradient_norm']:.2f} | {speed['images_per_second']:,.0f} images/s, "
            f"waiting for data {speed['data_wait']:.0%} | ETA {duration(left)}"
            + (f" | {bad} bad examples left out, see bad_samples.jsonl" if bad else ""))
        if speed["data_wait"] > SLOW_INPUT and not self._hinted:
            self._hinted = True
            self.log.line(f"the step waits for data more than {SLOW_INPUT:.0%} of the time: imgcls "
                          "bench input tells what the input can do, imgcls data prepare "
                          "--short_side=288 makes decoding cheaper")
        self._sums.clear()
        self._ids = 0
        host.waited, self._since = 0.0, time.perf_counter()

    def _evaluate(self, state: TrainState, step: int, names: list[str]):
        began = time.perf_counter()
        values = {}
        for name in names:
            program = ((self._evaluating[name].result()[0],) if name in self._evaluating else ())
            found = self.run.evaluations[name].run(state.eval_variables(), *program)
            found = workdir.write_evaluation(self.log.workdir, name, found, main=self.log.main)
            values |= {f"{name}/{key}": value for key, value in found.items()}
        self._check_named(names, values)
        if self.history and self.history[-1]["step"] == step:
            self.history[-1] |= values
        else:
            self.history.append({"step": step, **values})
        self.log.row(step, values)
        shown = ", ".join(f"{key} {value:.4f}" for key, value in values.items())
        self.log.line(f"step {step}: {shown} ({duration(time.perf_counter() - began)})")
        self._since += time.perf_counter() - began

    def _check_named(self, names: list[str], values: Mapping):
        """What the config names of an evaluation must be in it: it would be waited for in vain."""
        stop = self.run.stop or {}
        for key, metric in (("checkpoint.best", self.run.checkpoint["best"]),
                            ("stop.metric", stop.get("metric"))):
            if metric and metric.split("/")[0] in names and metric not in values:
                raise ConfigError(f"the evaluation gives no {metric!r}", where=f"config.{key}",
                                  fix=near(metric, values))

    def _patience_ended(self, step: int) -> str | None:
        """Early stopping: why the run ends here, or None."""
        stop = self.run.stop
        if stop is None:
            return None
        sign = 1 if stop["mode"] == "max" else -1
        scores = [(sign * row[stop["metric"]], -row["step"]) for row in self.history
                  if stop["metric"] in row]
        if not scores or step + max(scores)[1] < stop["patience"]:
            return None
        return (f"{stop['metric']} has not risen since step {-max(scores)[1]}" if sign > 0 else
                f"{stop['metric']} has not fallen since step {-max(scores)[1]}")

    def _save(self, state: TrainState, step: int, stopped: str | None):
        # All Sums up to this step have been looked at (_flush): no bad state is saved.
        began = time.perf_counter()
        run, last = self.run, self.history[-1] if self.history else {}
        score = last.get(run.checkpoint["best"]) if last.get("step") == step else None
        self.checkpoints.save(step, state, {
            "config": run.config, "classes": run.source.classes, "model": run.spec.name,
            "preprocessing": run.preprocessing, "versions": environment.versions(),
            "history": self.history, "stopped": stopped}, score)
        self._since += time.perf_counter() - began

    def _preempted(self, step: int, *, saved: bool) -> Preempted:
        asked = self.signals.asked or "SIGTERM"
        state = f"the state is saved at step {step}" if saved else "there was nothing to save yet"
        return Preempted(f"stopped by {asked}: {state}", where=str(self.log.workdir),
                         fix="run the same line again to go on")


class _Timed:
    """An iterator that adds up how long its consumer waited."""

    def __init__(self, iterator):
        self._iterator, self.waited = iter(iterator), 0.0

    def __iter__(self):
        return self

    def __next__(self):
        began = time.perf_counter()
        try:
            return next(self._iterator)
        finally:
            self.waited += time.perf_counter() - began


# ---- behind the last step -------------------------------------------------------------------


def _results(run: Run, history: list[dict], stopped: str | None, directory: Path) -> dict:
    """What results.json holds: the last evaluation, and the best where the config names one."""
    last = history[-1] if history else {"step": run.total_steps}
    evals: dict[str, dict] = {name: {} for name in run.evaluations}
    for key, value in last.items():
        if key != "step":
            name, metric = key.split("/", 1)
            evals[name][metric] = value
    results = {"step": last["step"], "model": run.spec.name, "eval": evals,
               "workdir": str(directory)}
    best = run.checkpoint["best"]
    rows = [row for row in history if best in row]
    if rows:
        sign = 1 if run.checkpoint["best_mode"] == "max" else -1
        top = max(rows, key=lambda row: (sign * row[best], row["step"]))
        results["best"] = {"step": top["step"], best: top[best]}
    return results | ({"stopped": stopped} if stopped else {})


def _summary(results: Mapping) -> str:
    shown = "; ".join(f"{name}: " + ", ".join(f"{k} {v:.4f}" for k, v in values.items())
                      for name, values in results["eval"].items())
    reason = f" ({results['stopped']})" if "stopped" in results else ""
    return f"done at step {results['step']}{reason}. {shown}. {results['workdir']}/results.json"


def record(run: Run, directory: Path, name: str, results: Mapping) -> dict:
    """All that a reader needs to trust a result, or to make it again."""
    path = directory / "metrics.jsonl"
    curve = [row for _, row in read_rows(path)] if path.exists() else []
    rates = [row["images_per_second"] for row in curve if "images_per_second" in row]
    return {"config_name": name, "claim": run.claim, "result": results, "config": run.config,
            "config_digest": configs.digest(run.config), "seed": run.config["seed"],
            "finished": time.strftime("%Y-%m-%d"),
            "images_per_second": statistics.median(rates) if rates else None,
            **environment.environment(), "curve": curve}
