"""Time to the first step of `imgcls train`, with an empty and with a filled compilation cache.

Each measurement is a process of its own: `imgcls bench start ... --child=KIND@TIME`, started at
that time. It does what its kind says and ends in `report`.
"""

import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

from imgcls_jax.errors import EnvironmentFailure
from imgcls_jax.types import Run

# With all that they import.
MODULES = ("imgcls_jax.cli.train", "imgcls_jax.assembly", "imgcls_jax.training.loop")


def measure(words: Sequence[str], rounds: int, *, unset: Sequence[str] = ()) -> dict:
    """Seconds of one start with an empty cache, then of `rounds` with it filled, and of imports.

    words: the command line, from "bench" on. unset: environment variables that the measured
    processes do without. Starts with a filled cache and imports alternate, and their medians are
    given. A process is timed from before it is started; `processor` is its processor time, of all
    threads, which other work on the machine disturbs less. `imports` are those of a plain Python,
    as any script has them; `lean_imports` are as the command does them (collector, no Keras).
    Raises EnvironmentFailure where a process fails.
    """
    with tempfile.TemporaryDirectory() as cache:
        cold = child("train", words, cache, unset)
        warm, imported, lean = [], [], []
        for _ in range(rounds):
            imported.append(_plain_imports())
            lean.append(child("imports", words, cache, unset))
            warm.append(child("train", words, cache, unset))
    result = {"cold": cold, "warm": _medians(warm), "imports": _medians(imported),
              "lean_imports": _medians(lean)}
    now = result["warm"]
    for kind in ("imports", "lean_imports"):
        for key, name in (("total", ""), ("processor", "_by_processor")):
            result[f"warm_over_{kind}{name}"] = now[key] / result[kind][key]
    result["warm_over_cold"] = now["total"] / cold["total"]
    result["compile_warm_over_cold"] = now["compile"] / cold["compile"]
    result["trace_and_compile_warm_over_cold"] = (
        (now["trace"] + now["compile"]) / (cold["trace"] + cold["compile"]))
    return result


def child(kind: str, words: Sequence[str], cache: str, unset: Sequence[str] = ()) -> dict:
    """What a process of that kind reports: "train", "imports" or "init", the part after --child.

    cache: folder of compiled programs, or "off". unset: as of `measure`.
    """
    command = [sys.executable, "-m", "imgcls_jax", *words, f"--cache={cache}",
               f"--child={kind}@{time.time()}"]
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise EnvironmentFailure(f"the measured process failed: {done.stderr.strip()[-300:]}",
                                 where=" ".join(command), fix="run it by itself")
    return json.loads(lines[0].removeprefix("RESULT "))


def _plain_imports() -> dict:
    began = time.time()
    names = ", ".join(("tensorflow", *MODULES))
    code = f"import os, time, {names}; print(time.process_time(), flush=True); os._exit(0)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return {"total": time.time() - began, "processor": float(done.stdout)}


def _medians(rows: list[dict]) -> dict:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


# ---- in the measured process ------------------------------------------------------------------


def report(values: dict, began: float):
    """Tells the parent what was measured and ends this process at once.

    began: when the parent started it, by time.time().
    """
    values["processor"] = time.process_time()
    values["total"] = time.time() - began
    print("RESULT " + json.dumps(values), flush=True)
    os._exit(0)


def imports() -> dict:
    """Imports all that a training run does, one after the other, and nothing else."""
    for name in MODULES:
        importlib.import_module(name)
    from imgcls_jax.data.decoding.tensorflow import tensorflow

    tensorflow()
    return {}


def call_after_first_step(report: Callable[[dict], None]):
    """Makes every training of this process call report(seconds) after its first step.

    compile: seconds of XLA, or of reading its result from the cache; trace: of what comes before;
    wait_for_compile: how long the loop waited for both.
    """
    from imgcls_jax.training import programs

    compile_step = programs.compile_step
    programs.compile_step = lambda run: _Watched(compile_step(run), report)


class _Watched:
    """The future of a compiled step that reports after its first call."""

    def __init__(self, future, report: Callable[[dict], None]):
        self._future, self._report = future, report

    def done(self) -> bool:
        return self._future.done()

    def result(self, timeout: float | None = None):
        began = time.time()
        program, seconds = self._future.result(timeout)
        waited = time.time() - began

        def first(state, batch):
            import jax

            done = jax.block_until_ready(program(state, batch))
            self._report({"trace": seconds["trace"], "compile": seconds["compile"],
                          "wait_for_compile": waited})
            return done

        return first, seconds


def initialisation(run: Run) -> dict:
    """Seconds of our initialisation on the host and of a compiled `model.init`, and their ratio."""
    import jax
    import jax.numpy as jnp

    from imgcls_jax import init

    sample = (1, *run.abstract_batch["image"].shape[1:])
    began = time.perf_counter()
    init.initialise(run.module, sample, 0)
    ours = time.perf_counter() - began
    began = time.perf_counter()
    jax.block_until_ready(jax.jit(run.module.init)(jax.random.key(0), jnp.zeros(sample)))
    theirs = time.perf_counter() - began
    return {"init_alone": ours, "jitted_init_alone": theirs, "init_ratio": ours / theirs}
