"""What the loop loses to waiting for its input: python experiments/bench/waiting.py

The loop of `imgcls train` runs a step that sleeps as long as an accelerator's would take, and does
nothing else. The input is real (read, cropped at random, batched, put on the device), and is first
timed alone, for it must be able to serve the step. Beside it, by turns, the loop runs with one
batch in memory, where there is nothing to wait for. Times are medians over the steps, which a
machine that others use as well disturbs least; lost is what a step takes over the sleep.
"""

import argparse
import dataclasses
import itertools
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import record
from jax.experimental import io_callback

from imgcls_jax import config, runtime
from imgcls_jax.__main__ import GC_THRESHOLD, gc
from imgcls_jax.build import build
from imgcls_jax.train import train

WARM = 5  # steps that are not counted


def make(batch_size: int, steps: int, milliseconds: float):
    chosen = config.load("digits", []).config
    every = {"steps": 10 * steps}
    run = build(chosen | {
        "data": {"name": "synthetic", "size": 64, "train": "train", "eval": "validation"},
        "transforms": ({"name": "pad_crop", "padding": 4}, {"name": "flip"}),
        "batch_size": batch_size, "schedule": {"name": "constant", "base": 0.1}, "evals": {},
        "total": {"steps": steps + WARM + 3}, "log": {"every": every},
        "checkpoint": {"every": every}}, devices=jax.devices()[:1])
    sums = jax.eval_shape(run.step, run.abstract_state, run.abstract_batch)[1]

    def sleep(number):
        time.sleep(milliseconds / 1000)
        return np.asarray(number)

    def step(state, batch):
        number = io_callback(sleep, jax.ShapeDtypeStruct((), np.int32), state.step)
        same = {name: jax.numpy.zeros(leaf.shape, leaf.dtype) for name, leaf in sums.items()}
        return state.replace(step=number + 1), same | {"steps": jax.numpy.ones(())}

    return dataclasses.replace(run, step=step)


def images_per_second(run, steps: int) -> float:
    """Of the input alone."""
    batches = run.batches(0)
    for _ in range(WARM):
        next(batches)
    began = time.perf_counter()
    for _ in range(steps):
        next(batches)
    return steps * run.batch_size / (time.perf_counter() - began)


def seconds_of_steps(run, steps: int) -> list[float]:
    marks = []

    def noted(start):
        for batch in run.batches(start):
            marks.append(time.perf_counter())
            yield batch

    with tempfile.TemporaryDirectory() as place:
        train(dataclasses.replace(run, batches=noted), Path(place), quiet=True)
    return list(np.diff(marks[WARM:WARM + steps + 1]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--milliseconds", type=float, default=100)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    gc.set_threshold(*GC_THRESHOLD)  # as the command does
    runtime.enable_cache()
    run = make(asked.batch_size, asked.steps, asked.milliseconds)
    alone = images_per_second(run, asked.steps)
    batch = next(run.batches(0))
    still = dataclasses.replace(run, batches=lambda start: itertools.repeat(batch))
    rounds = [(seconds_of_steps(run, asked.steps), seconds_of_steps(still, asked.steps))
              for _ in range(asked.rounds)]
    real, memory = (np.concatenate(taken) for taken in zip(*rounds, strict=True))
    sleep = asked.milliseconds / 1000
    row = {"case": f"{asked.batch_size} images of 64 pixels, a step of {asked.milliseconds:g} ms",
           "steps": asked.steps, "input_alone_images_per_s": alone,
           "asked_images_per_s": asked.batch_size / asked.milliseconds * 1000,
           "milliseconds_per_step": float(np.median(real)) * 1000,
           "lost": 1 - sleep / float(np.median(real)),
           "lost_by_the_mean": 1 - sleep / float(real.mean()),
           "lost_with_a_batch_in_memory": 1 - sleep / float(np.median(memory)),
           "the_same_by_the_mean": 1 - sleep / float(memory.mean())}
    record.save("waiting", "What is lost to waiting for the input", [row],
                backend=jax.default_backend())
    print(row)


if __name__ == "__main__":
    main()
