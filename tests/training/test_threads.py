"""Threads that trace, import and read at the same time change no number of a run."""

import concurrent.futures
import hashlib
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from imgcls_jax import init, tree
from imgcls_jax.training import programs
from tests.steps.test_distill import built, distilled, taught  # noqa: F401

REPEATS = 100


def began(run) -> str:
    """A digest of the state and the first batch, which are made while other threads trace."""
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        traced = [pool.submit(programs.lower_step, run) for _ in range(2)]
        state, batch = run.init(), next(run.batches(0))
        for future in traced:
            future.result()
    found = hashlib.sha256()
    for path, leaf in sorted(tree.flatten({"state": state, "batch": dict(batch)}).items()):
        found.update(path.encode() + np.asarray(jax.device_get(leaf)).tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("part", [
    pytest.param(part, marks=pytest.mark.nightly(rotating=part > 0)) for part in range(3)])
def test_a_start_beside_tracing_threads_is_the_same_a_hundred_times(taught, monkeypatch,  # noqa: F811
                                                                    part):
    """With a delay wherever a variable is made, so that the threads change places there."""
    def start():
        # Names as the student has them, and other shapes: what once was recorded in its place.
        return began(built(step=distilled(taught)))

    alone, random, record = start(), np.random.default_rng(part), init._record

    def delayed(*arguments):
        if random.random() < 0.3:
            time.sleep(random.random() * 1e-3)
        return record(*arguments)

    monkeypatch.setattr(init, "_record", delayed)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        assert {start() for _ in range(REPEATS)} == {alone}
    finally:
        sys.setswitchinterval(before)


@pytest.mark.nightly
def test_threads_that_need_tensorflow_first_get_it_whole():
    script = ("import concurrent.futures, os, sys\n"
              "from imgcls_jax.data.decoding.tensorflow import tensorflow\n"
              "sys.setswitchinterval(1e-5)\n"
              "with concurrent.futures.ThreadPoolExecutor(8) as pool:\n"
              "    found = list(pool.map(lambda _: tensorflow(), range(8)))\n"
              "assert len(set(map(id, found))) == 1 and found[0].io.decode_image\n"
              "assert 'TF_USE_LEGACY_KERAS' not in os.environ\n")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr
