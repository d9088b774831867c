"""imgcls bench start: time to the first step, cold and with a warm compilation cache."""

import json
import subprocess
import sys
import tempfile
import time

from imgcls_jax import config
from imgcls_jax.cli import _flags
from imgcls_jax.cli.bench import FLAGS, plain_config
from imgcls_jax.errors import EnvironmentFailure


def main(overrides):
    if FLAGS.child:
        print("RESULT " + json.dumps(_child(overrides)))
        return
    words = [word for word in sys.argv[1:] if not word.startswith(("--cache", "--child"))]
    with tempfile.TemporaryDirectory() as cache:
        result = {kind: _run_child(words, cache) for kind in ("cold", "warm")}
    result["warm_over_cold"] = result["warm"]["total"] / result["cold"]["total"]
    print(json.dumps(result, indent=1))


def _run_child(words: list[str], cache: str) -> dict:
    command = [sys.executable, "-m", "imgcls_jax", *words, f"--cache={cache}",
               f"--child={time.time()}"]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise EnvironmentFailure(f"the measured process failed: {done.stderr.strip()[-300:]}",
                                 where=" ".join(command), fix="run it by itself")
    return json.loads(lines[0].removeprefix("RESULT "))


def _child(overrides) -> dict:
    """Seconds by part, from the start of the process to the end of the first step.

    `first_batch` and `compile` run side by side: `total` is less than the sum.
    """
    spent, mark = {}, float(FLAGS.child)

    def lap(name):
        nonlocal mark
        spent[name], mark = time.time() - mark, time.time()

    import threading

    _flags.start(FLAGS)
    from imgcls_jax import pipeline

    importing = threading.Thread(target=pipeline.tensorflow, daemon=True)
    importing.start()
    import jax

    from imgcls_jax.build import build
    from imgcls_jax.programs import compile_step
    if FLAGS.config:
        chosen = config.load(FLAGS.config, overrides).config
    else:
        from imgcls_jax.models import MODELS

        size = FLAGS.size or MODELS.facts(FLAGS.model)["image_size"]
        chosen = config.override(plain_config(FLAGS.model, FLAGS.batch or 8, size,
                                              FLAGS.precision), overrides)
    jax.devices()
    lap("import")
    run = build(chosen)
    lap("build")
    compiling = compile_step(run)
    state = jax.block_until_ready(run.init())
    lap("init")
    from imgcls_jax import sharding
    host = next(iter(run.batches(0)))
    batch = sharding.to_device(host, run.batch_size, run.mesh)
    lap("first_batch")
    step, compile_seconds = compiling.result()
    lap("wait_for_compile")
    jax.block_until_ready(step(state, batch))
    lap("first_step")
    spent["compile"] = compile_seconds
    spent["total"] = time.time() - float(FLAGS.child)
    if FLAGS.compare_init:
        spent |= _compare_init(run)
    return spent


def _compare_init(run) -> dict:
    """The host-side initialisation beside a compiled `model.init`, alone on the machine."""
    import jax
    import jax.numpy as jnp

    from imgcls_jax import init

    sample = (1, *run.abstract_batch["image"].shape[1:])
    began = time.perf_counter()
    init.initialise(run.module, sample, 0)
    ours = time.perf_counter() - began
    jax.config.update("jax_enable_compilation_cache", False)  # the folder alone is read once
    began = time.perf_counter()
    jax.block_until_ready(jax.jit(run.module.init)(jax.random.key(0), jnp.zeros(sample)))
    theirs = time.perf_counter() - began
    return {"init_alone": ours, "jitted_init_alone": theirs, "init_ratio": ours / theirs}
