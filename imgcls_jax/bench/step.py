"""imgcls bench step: images per second of the training step alone, or beside another package's."""

import json
import os
import statistics
import sys
import time

from imgcls_jax.bench import compare, peaks, trace
from imgcls_jax.bench import rounds as _rounds
from imgcls_jax.cli import _flags
from imgcls_jax.cli.bench import FLAGS, chosen
from imgcls_jax.errors import EnvironmentFailure


def main(overrides):
    if FLAGS.beside:
        compare.share_device()  # before anything asks JAX for one
    _flags.start(FLAGS)
    config = chosen(overrides)
    choices = dict(steps=FLAGS.steps, rounds=FLAGS.rounds, tolerance=FLAGS.probe_tolerance,
                   profile=FLAGS.profile)
    if FLAGS.beside:
        compare.check(config, FLAGS)
        with compare.Child(FLAGS.beside_python or sys.executable) as child:
            found = measure(config, child, compiling=FLAGS.beside_compile, **choices)
    else:
        found = measure(config, **choices)
    print(json.dumps(found, indent=1))


class Step:
    """The compiled training step of a config, with a state and a batch that stay on the device.

    options: more of XLA's flags, for this program alone. clock: what rounds are timed with.
    """

    def __init__(self, chosen: dict, options: dict | None = None, clock=time.perf_counter):
        import jax
        import numpy as np

        from imgcls_jax.assembly import build
        from imgcls_jax.bench import hlo
        from imgcls_jax.parallel import transfer
        from imgcls_jax.training.programs import lower_step

        self.run = run = build(chosen)
        began = time.perf_counter()
        self.state = jax.block_until_ready(run.init())
        self.init_seconds = time.perf_counter() - began
        rng = np.random.default_rng(0)
        host = {"image": rng.integers(0, 256, run.abstract_batch["image"].shape, np.uint8),
                "label": rng.integers(0, len(run.source.classes), run.batch_size, np.int32),
                "mask": np.ones(run.batch_size, np.float32)}
        self.batch = transfer.to_device(host, run.batch_size, run.mesh)
        began = time.perf_counter()
        self.program = lower_step(run).compile(compiler_options=options)
        self.compile_seconds = time.perf_counter() - began
        self.text = self.program.as_text()
        self.facts = hlo.summary(self.program)
        if jax.default_backend() == "gpu":
            # Products are calls of libraries there, whose FLOPs and bytes XLA does not count.
            self.facts["flops"] = flops(chosen) / run.mesh.devices.size
            self.facts["bytes_accessed"] = hlo.moved(self.text)
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


def flops(chosen: dict) -> float:
    """FLOPs of a config's step on all devices, before XLA fuses and replaces anything.

    Counted for a CPU, whatever the step runs on: JAX's GPU client does not count.
    """
    import jax

    from imgcls_jax.assembly import build
    from imgcls_jax.training.programs import lower_step

    try:
        device = jax.devices("cpu")[:1]
    except RuntimeError as error:
        raise EnvironmentFailure("FLOPs are counted for a CPU, which JAX may not use here",
                                 where=f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS')}",
                                 fix="add it: JAX_PLATFORMS=cuda,cpu, or leave that unset"
                                 ) from error
    return lower_step(build({**chosen, "mesh": {"data": 1}}, devices=device)
                      ).cost_analysis()["flops"]


def measure(chosen: dict, child=None, *, steps: int, rounds: int, tolerance: float | None = None,
            profile: str | None = None, compiling: str = "default") -> dict:
    """Times rounds of `steps` steps of a config on one batch that stays on the device.

    child: a _beside.Child whose rounds alternate with ours; compiling: what it does to its model.
    tolerance: of the probe, as _rounds.tolerance has it by default. profile: a folder for a trace.
    """
    import jax

    from imgcls_jax import environment
    from imgcls_jax.parallel import processes

    step = Step(chosen)
    sides = {"ours": lambda: step.go(steps)}
    if child:
        theirs = child.prepare(compare.spec(step.run, chosen, compiling))
        sides["theirs"] = lambda: child.go(steps)
    done = _rounds.alternate(sides, _rounds.matmul(), rounds=rounds,
                             tolerance=_rounds.tolerance() if tolerance is None else tolerance)
    found = {
        "model": step.run.spec.name, "batch_size": step.run.batch_size,
        "image": list(step.run.abstract_batch["image"].shape[1:]),
        "dtype": processes.compute_dtype(chosen["precision"]), **figures(step, done, steps),
        "rounds": done.summary()}
    if child:
        found["beside"] = {**theirs, **speed(done.counted("theirs"), steps, step.run.batch_size),
                           "loss": child.loss}
        found["ratio"] = done.ratio("ours", "theirs")
    if profile:
        found["profile"] = trace.record(step.go, min(steps, 5), profile, step.text)
    if jax.default_backend() == "cpu":
        found["warning"] = "measured on a CPU: this says nothing of a GPU or TPU"
    return {**found, **environment.environment()}


def speed(taken: list[float], steps: int, images: int) -> dict:
    """Of rounds of so many steps: images per second by the median, and the spread."""
    milliseconds = [seconds / steps * 1e3 for seconds in taken]
    median = statistics.median(milliseconds)
    return {"images_per_second": images / median * 1e3,
            "step_milliseconds": {"median": median, "min": min(milliseconds),
                                  "max": max(milliseconds)}}


def figures(step: Step, done: _rounds.Rounds, steps: int) -> dict:
    """What is known of our own step."""
    import jax

    from imgcls_jax.bench import hlo
    from imgcls_jax.parallel import processes

    run, facts = step.run, step.facts
    devices, images = run.mesh.devices.size, run.batch_size
    found = speed(done.counted("ours"), steps, images)
    return {
        **found, "images_per_second_per_device": found["images_per_second"] / devices,
        "init_seconds": step.init_seconds, "compile_seconds": step.compile_seconds,
        "flops_per_image": facts["flops"] * devices / images,
        "bytes_accessed_per_image": facts["bytes_accessed"] * devices / images,
        "peak_bytes": facts["peak_bytes"], "collectives": facts["collectives"],
        **peaks.shares(jax.devices()[0].device_kind,
                        processes.compute_dtype(run.config["precision"]), flops=facts["flops"],
                        moved=facts["bytes_accessed"],
                        seconds=found["step_milliseconds"]["median"] / 1e3),
        "kernels": hlo.kernels(step.text), "loss": step.loss}
