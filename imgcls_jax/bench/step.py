"""Images per second of the training step alone, with data that is already on the device."""

import os
import statistics
import time
from collections.abc import Callable, Mapping

from imgcls_jax.bench import compare, peaks, trace
from imgcls_jax.bench import rounds as timed
from imgcls_jax.errors import EnvironmentFailure
from imgcls_jax.types import Run


class Step:
    """The compiled training step of a Run, with a state and a batch that stay on the device.

    options: flags of XLA for this program, in addition to the usual ones. clock: () -> seconds, by
    which rounds are timed.
    """

    def __init__(self, run: Run, options: Mapping | None = None,
                 clock: Callable[[], float] = time.perf_counter):
        import jax
        import numpy as np

        from imgcls_jax.bench import hlo
        from imgcls_jax.parallel import transfer
        from imgcls_jax.training.programs import lower_step

        self.run = run
        began = time.perf_counter()
        self.state = jax.block_until_ready(run.init())
        self.init_seconds = time.perf_counter() - began
        rng = np.random.default_rng(0)
        host = {"image": rng.integers(0, 256, run.abstract_batch["image"].shape, np.uint8),
                "label": rng.integers(0, len(run.source.classes), run.batch_size, np.int32),
                "mask": np.ones(run.batch_size, np.float32)}
        self.batch = transfer.to_device(host, run.batch_size, run.mesh)
        began = time.perf_counter()
        self.program = lower_step(run).compile(compiler_options=options and dict(options))
        self.compile_seconds = time.perf_counter() - began
        self.text = self.program.as_text()
        self.facts = hlo.summary(self.program)
        if jax.default_backend() == "gpu":
            # Products are calls of libraries there, whose bytes and FLOPs XLA does not count.
            self.facts |= {"flops": None, "bytes_accessed": hlo.moved(self.text)}
        self.clock, self.loss = clock, None
        self.go(2)

    def go(self, steps: int) -> float:
        """Seconds of so many steps, from an idle device to an idle device."""
        import jax

        began = self.clock()
        for _ in range(steps):
            self.state, sums = self.program(self.state, self.batch)
        jax.block_until_ready((self.state, sums))
        seconds = self.clock() - began
        self.loss = float(sums["loss"]) / self.run.batch_size
        return seconds


def cpu() -> list:
    """[the first CPU device], for which FLOPs are counted: JAX's GPU client does not count them.

    Raises EnvironmentFailure where JAX may not use the CPU.
    """
    import jax

    try:
        return jax.devices("cpu")[:1]
    except RuntimeError as error:
        platforms = os.environ.get("JAX_PLATFORMS")
        raise EnvironmentFailure("FLOPs are counted for a CPU, which JAX may not use here",
                                 where=f"JAX_PLATFORMS={platforms}",
                                 fix="add it: JAX_PLATFORMS=cuda,cpu, or leave that unset"
                                 ) from error


def flops(run: Run) -> float:
    """FLOPs of the step of a Run that was built for `cpu()`, before XLA fuses or replaces anything.

    They are those of the whole batch, as many as all devices of another mesh do together.
    """
    from imgcls_jax.training.programs import lower_step

    return lower_step(run).cost_analysis()["flops"]


def measure(run: Run, *, steps: int, rounds: int, tolerance: float | None = None,
            profile: str | None = None, total_flops: float | None = None,
            child: compare.Child | None = None, recipe: compare.Recipe | None = None) -> dict:
    """Times rounds of `steps` steps of a Run on one batch that stays on the device.

    tolerance: by what share a probe may differ from the
    median of all, by default as of rounds.tolerance. profile: a folder for a trace of some steps.
    total_flops: FLOPs of a step, as of `flops`; None on a GPU leaves what rests on them None.
    child, recipe: a process whose rounds alternate with ours, and how it trains. Raises
    EnvironmentFailure where the child or the profiler fails.
    """
    import jax

    from imgcls_jax import environment

    step = Step(run)
    if total_flops is not None:
        step.facts["flops"] = total_flops / run.mesh.devices.size
    sides = {"ours": lambda: step.go(steps)}
    if child:
        theirs = child.prepare(compare.request(run, recipe))
        sides["theirs"] = lambda: child.go(steps)
    done = timed.alternate(sides, timed.matmul(), rounds=rounds,
                           tolerance=timed.tolerance() if tolerance is None else tolerance)
    found = {"model": run.spec.name, "batch_size": run.batch_size,
             "image": list(run.abstract_batch["image"].shape[1:]), "dtype": run.dtype,
             **figures(step, done, steps), "rounds": done.summary()}
    if child:
        found["beside"] = {**theirs, **speed(done.counted("theirs"), steps, run.batch_size),
                           "loss": child.loss}
        found["ratio"] = done.ratio("ours", "theirs")
    if profile:
        found["profile"] = trace.record(step.go, min(steps, 5), profile, step.text)
    if jax.default_backend() == "cpu":
        found["warning"] = "measured on a CPU: this says nothing about a GPU or TPU"
    return {**found, **environment.environment()}


def speed(taken: list[float], steps: int, images: int) -> dict:
    """Images per second by the median, and the spread, of rounds of `steps` steps.

    taken: seconds of each round. images: those of one step.
    """
    milliseconds = [seconds / steps * 1e3 for seconds in taken]
    median = statistics.median(milliseconds)
    return {"images_per_second": images / median * 1e3,
            "step_milliseconds": {"median": median, "min": min(milliseconds),
                                  "max": max(milliseconds)}}


def figures(step: Step, done: timed.Rounds, steps: int) -> dict:
    """All figures of our own step: speed, FLOPs, bytes, and the shares of the device's peaks."""
    import jax

    from imgcls_jax.bench import hlo

    run, facts = step.run, step.facts
    devices, images = run.mesh.devices.size, run.batch_size
    found = speed(done.counted("ours"), steps, images)
    return {
        **found, "images_per_second_per_device": found["images_per_second"] / devices,
        "init_seconds": step.init_seconds, "compile_seconds": step.compile_seconds,
        "flops_per_image": facts["flops"] and facts["flops"] * devices / images,
        "bytes_accessed_per_image": facts["bytes_accessed"] * devices / images,
        "peak_bytes": facts["peak_bytes"], "collectives": facts["collectives"],
        **peaks.shares(jax.devices()[0].device_kind, run.dtype, flops=facts["flops"],
                       moved=facts["bytes_accessed"],
                       seconds=found["step_milliseconds"]["median"] / 1e3),
        "kernels": hlo.kernels(step.text), "loss": step.loss}
