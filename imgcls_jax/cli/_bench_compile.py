"""imgcls bench compile: what the TPU compiler makes of a config's step, without a TPU."""

import json
import time

from imgcls_jax.cli import _flags
from imgcls_jax.cli.bench import FLAGS, chosen
from imgcls_jax.cli.check import size


def main(overrides):
    _flags.start(FLAGS)
    from imgcls_jax import topology

    # First of all: what asks JAX for a device would make it look for a TPU that is not there.
    slice_ = topology.devices(FLAGS.topology)
    facts = measure(chosen(overrides), slice_, FLAGS.batch_per_device)
    print(json.dumps(facts, indent=1) if FLAGS.json else render(facts))


def measure(chosen: dict, slice_: list, batch_per_device: int | None = None) -> dict:
    """Facts of the step of a config, compiled for the devices of a TPU slice.

    Cycles are the compiler's estimate, a serial sum without communication; images per second are
    batch / (cycles / clock) of one chip, None where its clock is not known. optimal_seconds is
    the compiler's other estimate, a model of traffic, in which it books every ConcatBitcast as -1
    second: put right here.
    """
    from imgcls_jax import hlo, runtime
    from imgcls_jax.build import build
    from imgcls_jax.topology import CLOCK
    from imgcls_jax.train import lower_step

    if batch_per_device:
        chosen = {**chosen, "batch_size": batch_per_device * len(slice_)}
    if chosen["precision"] == "auto":  # which asks the devices that are there
        chosen = {**chosen, "precision": "bf16"}
    run = build(chosen, devices=slice_)
    lowered = lower_step(run)
    began = time.perf_counter()
    program = lowered.compile()
    seconds = time.perf_counter() - began
    summary, text = hlo.summary(program), program.as_text()
    estimated = hlo.cycles(text)
    images = run.batch_size / run.mesh.devices.size
    clock = CLOCK.get(slice_[0].device_kind)
    optimal = (program.cost_analysis() or {}).get("optimal_seconds", 0.0)
    return {
        "model": run.spec.name, "device": slice_[0].device_kind,
        "devices": len(slice_), "images_per_device": images,
        "dtype": runtime.compute_dtype(chosen["precision"]),
        "flops_per_image": summary["flops"] / images,
        "bytes_per_image": summary["bytes_accessed"] / images,
        "cycles_per_image": estimated["cycles"] / images,
        "cycles": estimated["cycles"], "cycles_of_copies": estimated["copies"],
        "images_per_second_per_device":
            images * clock / estimated["cycles"] if clock and estimated["cycles"] else None,
        "optimal_seconds": optimal + estimated["custom_calls"].get("ConcatBitcast", 0),
        "peak_bytes": summary["peak_bytes"], "collectives": summary["collectives"],
        "unpriced": estimated["unpriced"], "custom_calls": estimated["custom_calls"],
        "costliest": estimated["costliest"], "compile_seconds": seconds,
        "versions": runtime.versions(), "commit": runtime.commit()}


def render(facts: dict) -> str:
    rate = facts["images_per_second_per_device"]
    lines = [
        f"{facts['model']}, {facts['images_per_device']:g} images on each of {facts['devices']} "
        f"{facts['device']}, {facts['dtype']}",
        f"per image    {facts['flops_per_image'] / 1e9:.2f} GFLOP, "
        f"{facts['bytes_per_image'] / 1e6:.1f} MB, {facts['cycles_per_image'] / 1e6:.3f} M cycles",
        f"per step     {facts['cycles'] / 1e6:.1f} M cycles, of which copies "
        f"{facts['cycles_of_copies'] / 1e6:.1f} M; {facts['optimal_seconds'] * 1e3:.1f} ms by "
        "traffic alone",
        "estimate     " + (f"{rate:.0f} images/s per chip by cycles, without communication" if rate
                           else "the clock of this chip is not known"),
        f"memory       {size(facts['peak_bytes'])} per chip",
        "collectives  " + (", ".join(
            f"{row['count']} {kind} of {size(row['bytes'])} ({'+'.join(row['dtypes'])})"
            for kind, row in facts["collectives"].items()) or "none"),
        f"compiled in  {facts['compile_seconds']:.0f} s, "
        + ", ".join(f"{k} {facts['versions'][k]}" for k in ("jax", "libtpu")
                    if k in facts["versions"]),
        "costliest"]
    lines += [f"  {row['share']:6.1%}  {row['source']}" for row in facts["costliest"]]
    return "\n".join(lines)
