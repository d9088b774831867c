"""How much time does the training loop lose to waiting for its input?

python -m experiments.bench.waiting [--milliseconds=100]

The loop of `imgcls train` drives a stand-in of an accelerator: it takes calls at once, and does
nothing but be busy as long as a step would take. The input is real (made, cropped at random,
batched, put on the device), and is first timed alone, for it must be able to serve the step. Beside
it, by turns, the loop runs with one batch in memory, where there is nothing to wait for. Lost is
the share of the time that the stand-in had no step to do.
"""

import argparse
import concurrent.futures
import dataclasses
import gc
import itertools
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from experiments.bench import record
from imgcls_jax import config
from imgcls_jax.assembly import build
from imgcls_jax.parallel import processes
from imgcls_jax.training import programs
from imgcls_jax.training.loop import train

WARM = 5  # steps that are not counted


def make(batch_size: int, steps: int):
    chosen = config.load("digits", []).config
    every = {"steps": 10 * steps}
    return build(chosen | {
        "data": {"name": "synthetic", "size": 64, "train": "train", "eval": "validation"},
        "transforms": ({"name": "pad_crop", "padding": 4}, {"name": "flip"}),
        "batch_size": batch_size, "schedule": {"name": "constant", "base": 0.1}, "evals": {},
        "total": {"steps": steps + WARM + 3}, "log": {"every": every},
        "checkpoint": {"every": every}}, devices=jax.devices()[:1])


class Sleeper:
    """A device that takes one step after the other, each as long, and is called as a program is:
    at once there is a result, which can be read when its step is done."""

    def __init__(self, run, seconds: float):
        self._sums = jax.eval_shape(run.step, run.abstract_state, run.abstract_batch)[1]
        self._seconds = seconds
        self.done: list[float] = []  # when each step is

    def __call__(self, state, batch):
        jax.block_until_ready(batch)
        now = time.perf_counter()
        self.done.append(max(now, self.done[-1] if self.done else now) + self._seconds)
        values = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in self._sums.items()}
        values |= {"steps": np.ones(()), "learning_rate": np.zeros(())}
        return state, {name: Later(value, self.done[-1]) for name, value in values.items()}


class Later:
    """An array that is there at a time."""

    def __init__(self, value: np.ndarray, when: float):
        self._value, self._when = value, when

    def __array__(self, dtype=None, copy=None):
        time.sleep(max(0.0, self._when - time.perf_counter()))
        return self._value


def images_per_second(run, steps: int) -> float:
    """Of the input alone."""
    batches = run.batches(0)
    for _ in range(WARM):
        next(batches)
    began = time.perf_counter()
    for _ in range(steps):
        next(batches)
    return steps * run.batch_size / (time.perf_counter() - began)


def seconds_of_steps(run, seconds: float) -> np.ndarray:
    """From the end of one step to the end of the next."""
    device = Sleeper(run, seconds)
    compiled = concurrent.futures.Future()
    compiled.set_result((device, {"compile": 0.0}))
    programs.compile_step = lambda _: compiled
    with tempfile.TemporaryDirectory() as place:
        train(run, Path(place), quiet=True)
    return np.diff(device.done)[WARM:]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--milliseconds", type=float, default=100)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    gc.set_threshold(100_000, 50, 100)  # as `imgcls` does
    processes.enable_cache()
    run = make(asked.batch_size, asked.steps)
    alone = images_per_second(run, asked.steps)
    batch = next(run.batches(0))
    still = dataclasses.replace(run, batches=lambda start: itertools.repeat(batch))
    sleep = asked.milliseconds / 1000
    rounds = [(seconds_of_steps(run, sleep), seconds_of_steps(still, sleep))
              for _ in range(asked.rounds)]
    real, memory = (np.concatenate(taken) for taken in zip(*rounds, strict=True))
    row = {"case": f"{asked.batch_size} images of 64 pixels, a step of {asked.milliseconds:g} ms",
           "steps": asked.steps, "rounds": asked.rounds, "input_alone_images_per_s": alone,
           "asked_images_per_s": asked.batch_size / asked.milliseconds * 1000,
           "milliseconds_per_step": float(real.mean()) * 1000,
           "lost": float(1 - sleep / real.mean()),
           "lost_with_a_batch_in_memory": float(1 - sleep / memory.mean())}
    record.save("waiting", "What is lost to waiting for the input", [row],
                backend=jax.default_backend())
    print(row)


if __name__ == "__main__":
    main()
