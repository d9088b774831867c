"""imgcls bench step: images per second of the training step alone."""

import json
import statistics
import time

from imgcls_jax.cli import _flags
from imgcls_jax.cli.bench import FLAGS, chosen

PEAK = {  # dense bf16 TFLOP/s as the makers' data sheets have it, by a part of the device's name
    "H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "A10G": 70, "L40S": 362, "L4": 121,
    "V100": 125, "RTX 4090": 165, "RTX 3090": 71, "TPU v4": 275, "TPU v5 lite": 197,
    "TPU v5": 459, "TPU v6 lite": 918,
}


def main(overrides):
    _flags.start(FLAGS)
    print(json.dumps(measure(chosen(overrides), steps=FLAGS.steps, rounds=FLAGS.rounds), indent=1))


def measure(chosen: dict, *, steps: int, rounds: int) -> dict:
    """Times `rounds` times `steps` steps of a config on one batch that stays on the device."""
    import jax
    import numpy as np

    from imgcls_jax import hlo, runtime, sharding
    from imgcls_jax.build import build
    from imgcls_jax.programs import compile_step

    run = build(chosen)
    began = time.perf_counter()
    state = jax.block_until_ready(run.init())
    init_seconds = time.perf_counter() - began
    rng = np.random.default_rng(0)
    host = {"image": rng.integers(0, 256, run.abstract_batch["image"].shape, np.uint8),
            "label": rng.integers(0, len(run.source.classes), run.batch_size, np.int32),
            "mask": np.ones(run.batch_size, np.float32)}
    batch = sharding.to_device(host, run.batch_size, run.mesh)
    step, spent = compile_step(run).result()
    facts = hlo.summary(step)

    taken, losses = [], []
    for round_number in range(rounds + 1):  # the first one warms up
        began = time.perf_counter()
        for _ in range(steps if round_number else 2):
            state, sums = step(state, batch)
        losses.append(float(sums["loss"]) / run.batch_size)
        if round_number:
            taken.append((time.perf_counter() - began) / steps)
    seconds = statistics.median(taken)
    device = jax.devices()[0].device_kind
    peak = next((tflops * 1e12 for name, tflops in PEAK.items() if name in device), None)
    devices = run.mesh.devices.size
    # XLA's FLOPs are those of one device's program.
    share = facts["flops"] / seconds / peak if peak else None
    return {
        "model": run.spec.name, "batch_size": run.batch_size,
        "image": list(run.abstract_batch["image"].shape[1:]),
        "dtype": runtime.compute_dtype(chosen["precision"]),
        "images_per_second": run.batch_size / seconds,
        "images_per_second_per_device": run.batch_size / seconds / devices,
        "step_milliseconds": {"median": seconds * 1e3, "min": min(taken) * 1e3,
                              "max": max(taken) * 1e3},
        "init_seconds": init_seconds, "compile_seconds": sum(spent.values()),
        "flops_per_image": facts["flops"] * devices / run.batch_size,
        "bytes_accessed_per_image": facts["bytes_accessed"] * devices / run.batch_size,
        "peak_bytes": facts["peak_bytes"], "collectives": facts["collectives"],
        "share_of_peak": share, "loss": losses[-1], **runtime.environment()}
