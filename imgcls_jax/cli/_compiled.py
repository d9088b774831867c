"""Figures of a compiled step in words."""


def lines(facts: dict) -> list[str]:
    """What bench.topology.figures gives, for people."""
    rate = facts["images_per_second_per_device"]
    return [
        f"per image  {facts['flops_per_image'] / 1e9:.2f} GFLOP, "
        f"{facts['bytes_per_image'] / 1e6:.1f} MB, {facts['cycles_per_image'] / 1e6:.3f} M cycles",
        f"per step   {facts['cycles'] / 1e6:.1f} M cycles, of which copies "
        f"{facts['cycles_of_copies'] / 1e6:.1f} M; {facts['optimal_seconds'] * 1e3:.1f} ms by "
        "memory traffic alone",
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
