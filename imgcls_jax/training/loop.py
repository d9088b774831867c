"""The loop: restore or start, step, evaluate, save, stop. What a step does is not its business."""

import contextlib
import time
from pathlib import Path

import jax

from imgcls_jax import config as configs
from imgcls_jax import environment
from imgcls_jax.checkpoint.saving import Checkpoints
from imgcls_jax.errors import Preempted
from imgcls_jax.parallel import transfer
from imgcls_jax.training import programs, results, resume, workdir
from imgcls_jax.training.evaluations import Evaluations
from imgcls_jax.training.log import Log
from imgcls_jax.training.meter import Meter
from imgcls_jax.training.signals import Signals
from imgcls_jax.types import Run, TrainState


def train(run: Run, directory: Path, *, name: str = "", quiet: bool = False,
          take_over: bool = False) -> dict:
    """Trains `run` to its end in `directory`, from the newest good checkpoint there.

    take_over: takes the folder from another job, which stops when it notices. Returns what
    results.json holds. Raises Preempted (state saved) on SIGTERM or Ctrl-C, Diverged at a step that
    is not finite, ConfigError where another job has the folder, and the Failures of its parts.
    """
    lock = workdir.open_workdir(directory, main=jax.process_index() == 0, take_over=take_over)
    with lock or contextlib.nullcontext():
        return _train(run, directory, name, quiet, lock)


def _train(run: Run, directory: Path, name: str, quiet: bool, lock: workdir.Lock | None) -> dict:
    main = jax.process_index() == 0
    checkpoints = Checkpoints(directory / "checkpoints", keep=run.checkpoint.keep,
                              best_mode=run.checkpoint.best_mode)
    log = None
    try:
        with Signals() as signals:
            # While the state is restored; of several phases, only its step tells which one.
            compiling = None if run.phases else programs.compile_step(run)
            state, history, stopped, changes, before = resume.restore(run, checkpoints, directory)
            start = int(state.step)
            if run.phases and start < run.total_steps:
                compiling = programs.compile_step(resume.phases(run, start)[0].run)
            log = Log(directory, step=start, total=run.total_steps, quiet=quiet,
                      wandb=run.log.wandb, config=run.config)
            for line in (results.headline(run, directory, start, name), *(run.notes or ()),
                         *changes):
                log.line(line)
            if run.begin:
                run.begin(state, log.line)
            if main:
                results.describe(run, directory, before)
            loop = _Loop(run, checkpoints, log, signals, Evaluations(run, log, history), lock,
                         before)
            stopped = stopped or loop.catch_up(state, start)
            going_on = not stopped and start < run.total_steps
            if going_on:
                stopped = loop.run_steps(state, start, compiling)
            checkpoints.wait()
            found = results.summarise(run, history, stopped, directory)
            if main:
                loop.check_lock()
                workdir.write_json(directory / "results.json", found)
                if going_on or not (directory / "record.json").exists():
                    workdir.write_json(directory / "record.json",
                                       results.record(run, directory, name, found))
            log.line(results.summary(found))
            return found
    finally:
        if log:
            log.close()
        checkpoints.close()


class _Loop:
    def __init__(self, run: Run, checkpoints: Checkpoints, log: Log, signals: Signals,
                 evaluations: Evaluations, lock: workdir.Lock | None, before: dict):
        self.run, self.checkpoints, self.log = run, checkpoints, log
        self.signals, self.evaluations, self.lock = signals, evaluations, lock
        self.before = before  # what earlier checkpoints knew of the examples
        self.config = configs.located(run.config)
        self.meter = Meter(run, log, self._last_good)

    def check_lock(self):
        """ConfigError if another job has taken the workdir; asked before anything is written."""
        if self.lock:
            self.lock.check()

    def catch_up(self, state: TrainState, step: int) -> str | None:
        """Evaluations that a pre-emption left no time for; why the run ends here, or None."""
        missing = self.evaluations.missing(step)
        if not missing:
            return None
        with self.meter.clock.paused():
            self.evaluations.evaluate(state, step, missing)
        return self.evaluations.patience_ended(step)

    def run_steps(self, state: TrainState, start: int, compiling) -> str | None:
        """Steps from `start` to the end, or until told; returns why it stopped early, or None.

        compiling: the future of the first phase's step, as of programs.compile_step.
        """
        run, meter, evaluations, step, program = self.run, self.meter, self.evaluations, start, None
        coming = resume.phases(run, start)
        for number, (first, end, phase) in enumerate(coming):
            with meter.clock.paused():
                if first > start:
                    height, width = phase.abstract_batch["image"].shape[1:3]
                    self.log.line(f"step {first}: the next phase, images of {height} x {width}")
                batches, batch, waited = self._open(phase, step)
                # While the step compiles. Traced sooner, they would delay the first batch: tracing
                # and the import of TensorFlow both hold Python's lock.
                evaluations.start_compiling()
                before, (program, seconds) = program, programs.wait(
                    compiling, "the training step", self.log.line)
                if program is not before:
                    self.log.line(f"compiled in {sum(seconds.values()):.1f}s, first batch after "
                                  f"{waited:.1f}s")
                following = coming[number + 1].run if number + 1 < len(coming) else phase
                if following.step is not phase.step:  # compiled during the steps of this phase
                    compiling = programs.compile_step(following)
            while True:
                if self.signals.asked and step == start:
                    raise self._preempted(step, saved=start > 0)
                with jax.profiler.StepTraceAnnotation("train", step_num=step):
                    state, sums = program(state, batch[1])
                step += 1
                meter.add(step, sums, batch[0]["id"])
                last = step == run.total_steps
                preempted = self.signals.asked or self.checkpoints.reached_preemption(step)
                due = evaluations.due(step)
                save = last or preempted or step % run.checkpoint.every == 0
                if due or save or step % run.log.every == 0 or step == end:
                    self.check_lock()
                    meter.write(step)  # looks at all Sums so far: no bad state is saved
                stopped = None
                with meter.clock.paused():
                    if due and not preempted:
                        evaluations.evaluate(state, step, due)
                        stopped = evaluations.patience_ended(step)
                    if save or stopped:
                        self._save(state, step, stopped)
                if preempted:
                    self.checkpoints.wait()
                    raise self._preempted(step, saved=True)
                if stopped:
                    return stopped
                if step == end:
                    break
                self.log.progress(step)
                batch = next(batches)
        return None

    def _open(self, phase: Run, step: int):
        """(batches from this step on, the first of them, seconds that it took)."""
        began = time.perf_counter()
        batches = transfer.prefetch(self.meter.timed(phase.batches(step)), phase.put)
        first = next(batches)
        transfer.check_arrays(first[1], phase.abstract_batch, "config.transforms")
        return batches, first, time.perf_counter() - began

    def _save(self, state: TrainState, step: int, stopped: str | None):
        run = self.run
        self.check_lock()
        self.checkpoints.save(step, state, {
            "config": self.config, "classes": run.source.classes, "model": run.spec.name,
            "preprocessing": run.preprocessing, "versions": environment.versions(),
            "history": self.evaluations.history, "stopped": stopped,
            "examples": run.examples.facts(self.before)},
            self.evaluations.score(step))
        if self.log.main:
            results.write_splits(run, self.log.workdir)

    def _last_good(self) -> int | None:
        self.checkpoints.wait()
        return self.checkpoints.latest()

    def _preempted(self, step: int, *, saved: bool) -> Preempted:
        asked = self.signals.asked or "SIGTERM"
        state = f"the state is saved at step {step}" if saved else "there was nothing to save yet"
        return Preempted(f"stopped by {asked}: {state}", where=str(self.log.workdir),
                         fix="run the same line again to go on")
