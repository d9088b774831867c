"""Compiling for a TPU slice that is not there: the config that fits it, and the figures."""


def devices(topology: str) -> list:
    """As topology.devices; call it before anything asks JAX for a device."""
    from imgcls_jax.bench import topology as topologies

    return topologies.devices(topology)


def fit(chosen: dict, devices: list, batch_per_device: int | None = None) -> dict:
    """The config for a slice: its batch, and bf16 where the precision is left to the devices."""
    if batch_per_device:
        chosen = {**chosen, "batch_size": batch_per_device * len(devices)}
    if chosen["precision"] == "auto":  # which asks the devices that are there
        chosen = {**chosen, "precision": "bf16"}
    return chosen


def figures(run, program) -> dict:
    """What the compiler says of one chip's step.

    Cycles are the compiler's estimate, a serial sum without communication; images per second are
    batch / (cycles / clock) of one chip, None where its clock is not known. optimal_seconds is
    the compiler's other estimate, a model of traffic, in which it books every ConcatBitcast as -1
    second: put right here.
    """
    from imgcls_jax.bench import hlo
    from imgcls_jax.bench.topology import CLOCK

    summary, estimated = hlo.summary(program), hlo.cycles(program.as_text())
    kind, count = run.mesh.devices.flat[0].device_kind, run.mesh.devices.size
    images, cycles = run.batch_size / count, estimated["cycles"]
    clock = CLOCK.get(kind)
    optimal = (program.cost_analysis() or {}).get("optimal_seconds", 0.0)
    return {
        "device": kind, "devices": count, "images_per_device": images,
        "flops_per_image": summary["flops"] / images,
        "bytes_per_image": summary["bytes_accessed"] / images,
        "cycles_per_image": cycles / images, "cycles": cycles,
        "cycles_of_copies": estimated["copies"],
        "images_per_second_per_device": images * clock / cycles if clock and cycles else None,
        "optimal_seconds": optimal + estimated["custom_calls"].get("ConcatBitcast", 0),
        "peak_bytes": summary["peak_bytes"], "collectives": summary["collectives"],
        "unpriced": estimated["unpriced"], "custom_calls": estimated["custom_calls"],
        "costliest": estimated["costliest"]}


def lines(facts: dict) -> list[str]:
    """The figures in words."""
    rate = facts["images_per_second_per_device"]
    return [
        f"per image  {facts['flops_per_image'] / 1e9:.2f} GFLOP, "
        f"{facts['bytes_per_image'] / 1e6:.1f} MB, {facts['cycles_per_image'] / 1e6:.3f} M cycles",
        f"per step   {facts['cycles'] / 1e6:.1f} M cycles, of which copies "
        f"{facts['cycles_of_copies'] / 1e6:.1f} M; {facts['optimal_seconds'] * 1e3:.1f} ms by "
        "traffic alone",
        "estimate   " + (f"{rate:.0f} images/s per chip by cycles, without communication" if rate
                         else "the clock of this chip is not known"),
        f"memory     {size(facts['peak_bytes'])} per chip",
        "collective " + (", ".join(
            f"{row['count']} {kind} of {size(row['bytes'])} ({'+'.join(row['dtypes'])})"
            for kind, row in facts["collectives"].items()) or "none"),
        "costliest", *(f"  {row['share']:6.1%}  {row['source']}" for row in facts["costliest"])]


def size(count: float) -> str:
    """Bytes -> "97.5 MiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.4g} {unit}"
        count /= 1024
    return ""
