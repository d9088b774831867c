"""imgcls bench start: time to the first step of `imgcls train`, cold and with a warm cache."""

import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from imgcls_jax import config
from imgcls_jax.__main__ import HUGE_PAGES
from imgcls_jax.cli import _flags
from imgcls_jax.cli.bench import FLAGS, chosen
from imgcls_jax.errors import EnvironmentFailure

# With all that they import.
MODULES = ("imgcls_jax.cli.train", "imgcls_jax.assembly", "imgcls_jax.training.loop")


def main(overrides):
    if FLAGS.child:
        return _CHILDREN[FLAGS.child.split("@")[0]](overrides)
    words = [word for word in sys.argv[1:] if not word.startswith(("--cache", "--child"))]
    found = measure(words, FLAGS.rounds)
    if FLAGS.compare_init:
        found |= _run_child("init", words, "off")
    print(json.dumps(found, indent=1))


def measure(words: list[str], rounds: int) -> dict:
    """Seconds of one cold start, and of as many warm ones and mere imports by turns.

    words: the command line. Medians of the warm ones and of the imports; each is a process of its
    own, timed from before it is started; `processor` is its processor time, of all threads, which a
    busy machine disturbs less. Imports are those of a plain Python, as a script of
    anybody's has them; the lean ones are as the command does them (collector, no Keras).
    """
    with tempfile.TemporaryDirectory() as cache:
        cold = _run_child("train", words, cache)
        warm, imports, lean = [], [], []
        for _ in range(rounds):
            imports.append(_plain_imports())
            lean.append(_run_child("imports", words, cache))
            warm.append(_run_child("train", words, cache))
    result = {"cold": cold, "warm": _medians(warm), "imports": _medians(imports),
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


def _plain_imports() -> dict:
    began = time.time()
    names = ", ".join(("tensorflow", *MODULES))
    code = f"import os, time, {names}; print(time.process_time(), flush=True); os._exit(0)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return {"total": time.time() - began, "processor": float(done.stdout)}


def _medians(rows: list[dict]) -> dict:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def _run_child(kind: str, words: list[str], cache: str) -> dict:
    command = [sys.executable, "-m", "imgcls_jax", *words, f"--cache={cache}",
               f"--child={kind}@{time.time()}"]
    environment = {key: value for key, value in os.environ.items() if key not in HUGE_PAGES}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise EnvironmentFailure(f"the measured process failed: {done.stderr.strip()[-300:]}",
                                 where=" ".join(command), fix="run it by itself")
    return json.loads(lines[0].removeprefix("RESULT "))


def _end(values: dict):
    """Prints what was measured, and leaves at once: what follows the first step is not asked."""
    values["processor"] = time.process_time()
    values["total"] = time.time() - float(FLAGS.child.split("@")[1])
    print("RESULT " + json.dumps(values), flush=True)
    os._exit(0)


def _imports(overrides):
    """All that a training run imports, one after the other, and nothing else."""
    for name in MODULES:
        importlib.import_module(name)
    from imgcls_jax.data.decoding.tensorflow import tensorflow

    tensorflow()
    _end({})


def _train(overrides):
    """`imgcls train` to the end of its first step.

    compile: seconds of XLA, or of reading what it made from the cache; trace: what comes before.
    """
    with tempfile.TemporaryDirectory() as workdir:
        from imgcls_jax.cli import train
        from imgcls_jax.training import programs

        compile_step = programs.compile_step

        def watched(run):
            return _Watched(compile_step(run))

        programs.compile_step = watched
        settings = {name: FLAGS[name].value for name in ("coordinator", "processes", "process_id",
                                                         "cache")}
        flags = [f"--{name}={value}" for name, value in settings.items() if value is not None]
        train.FLAGS(["imgcls train", *flags, f"--workdir={workdir}", "--quiet"])
        train.run(config.Loaded(chosen(overrides), FLAGS.config or FLAGS.model, None, ""))


class _Watched:
    """The future of a compiled step; the process ends with its first call."""

    def __init__(self, future):
        self._future = future

    def result(self):
        began = time.time()
        program, seconds = self._future.result()
        waited = time.time() - began

        def first(state, batch):
            import jax

            jax.block_until_ready(program(state, batch))
            _end({"trace": seconds["trace"], "compile": seconds["compile"],
                  "wait_for_compile": waited})

        return first, seconds


def _init(overrides):
    """The host-side initialisation beside a compiled `model.init`, alone on the machine."""
    import jax
    import jax.numpy as jnp

    from imgcls_jax import init
    from imgcls_jax.assembly import build

    _flags.start(FLAGS)
    run = build(chosen(overrides))
    sample = (1, *run.abstract_batch["image"].shape[1:])
    began = time.perf_counter()
    init.initialise(run.module, sample, 0)
    ours = time.perf_counter() - began
    began = time.perf_counter()
    jax.block_until_ready(jax.jit(run.module.init)(jax.random.key(0), jnp.zeros(sample)))
    theirs = time.perf_counter() - began
    _end({"init_alone": ours, "jitted_init_alone": theirs, "init_ratio": ours / theirs})


_CHILDREN = {"train": _train, "imports": _imports, "init": _init}
