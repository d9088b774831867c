"""What does the host spend on one step of the training loop?

python -m experiments.bench.host [--steps=2000]

The loop of `imgcls train` runs a step that computes nothing: the state of a tiny model goes in and
out, and the Sums are constants. What its thread then spends, in seconds of processor time, is the
host's: taking the batch, putting it on the device, calling the program, reading the Sums. Once with
one batch in memory, once with the input of the digits. Not logged, evaluated or saved on the way.
"""

import argparse
import dataclasses
import gc
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import jax

from experiments.bench import record
from imgcls_jax import config
from imgcls_jax.assembly import build
from imgcls_jax.parallel import processes
from imgcls_jax.training.loop import train

WORDS = {"model": {"name": "vit_mini", "width": 16, "depth": 2, "heads": 2, "stem": ()},
         "batch_size": 32, "schedule": {"name": "constant", "base": 0.1}, "evals": {}}
WARM = 100  # steps that are not counted


def make(steps: int):
    every = {"steps": 10 * steps}
    chosen = config.load("digits", []).config | WORDS
    return build(chosen | {"total": {"steps": steps + WARM + 3}, "log": {"every": every},
                           "checkpoint": {"every": every}}, devices=jax.devices()[:1])


def idle(run):
    """The run with a step that computes nothing, of the same arguments and results."""
    sums = jax.eval_shape(run.step, run.abstract_state, run.abstract_batch)[1]

    def step(state, batch):
        same = {name: jax.numpy.zeros(leaf.shape, leaf.dtype) for name, leaf in sums.items()}
        return state.replace(step=state.step + 1), same | {"steps": jax.numpy.ones(())}

    return dataclasses.replace(run, step=step)


def measure(run, steps: int, batches) -> dict:
    """Microseconds per step of the loop's thread, in processor time, and of the wall."""
    marks = []

    def noted(start):
        for batch in batches(start):
            marks.append((time.thread_time(), time.perf_counter()))
            yield batch

    with tempfile.TemporaryDirectory() as place:
        train(dataclasses.replace(run, batches=noted), Path(place), quiet=True)
    (spent, wall), (last_spent, last_wall) = marks[WARM], marks[WARM + steps]
    return {"host_us": (last_spent - spent) / steps * 1e6,
            "wall_us": (last_wall - wall) / steps * 1e6}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    gc.set_threshold(100_000, 50, 100)  # as `imgcls` does
    processes.enable_cache()
    run = idle(make(asked.steps))
    batch = next(run.batches(0))
    inputs = {"one batch in memory": lambda start: itertools.repeat(batch),
              "the digits": run.batches}
    found = {name: [] for name in inputs}
    for _ in range(asked.rounds):
        for name, batches in inputs.items():
            found[name].append(measure(run, asked.steps, batches))
    leaves = len(jax.tree.leaves(run.abstract_state))
    rows = [{"case": f"vit_mini, {leaves} leaves; {name}", "steps": asked.steps,
             "rounds": asked.rounds,
             **{key: statistics.median(row[key] for row in rounds) for key in rounds[0]}}
            for name, rounds in found.items()]
    record.save("host", "What the host spends on a step", rows, backend=jax.default_backend())
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
