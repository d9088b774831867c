"""Timed rounds that alternate between sides, and a probe that shows which were disturbed."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping

FEWEST = 3  # undisturbed rounds that are enough for a figure
MOST = 2  # times the rounds asked for, if disturbed ones have to be repeated


@dataclasses.dataclass(frozen=True)
class Rounds:
    """seconds: of each side, one per round. probes: seconds of the probe, before the first round
    and after each side. tolerance: share by which a probe may differ from the median of all."""

    seconds: dict[str, list[float]]
    probes: list[float]
    tolerance: float

    @property
    def void(self) -> list[bool]:
        """For each round, whether a probe before, within or after it differs too much."""
        middle, sides = statistics.median(self.probes), len(self.seconds)
        off = [abs(probe / middle - 1) > self.tolerance for probe in self.probes]
        return [any(off[i:i + sides + 1]) for i in range(0, len(off) - 1, sides)]

    @property
    def trusted(self) -> bool:
        """Whether enough rounds were undisturbed; if not, all of them count."""
        return self.void.count(False) >= FEWEST

    def counted(self, side: str) -> list[float]:
        """Seconds of the rounds that count, the same rounds for every side."""
        keep = [not void or not self.trusted for void in self.void]
        return [taken for taken, kept in zip(self.seconds[side], keep, strict=True) if kept]

    def ratio(self, over: str, under: str) -> dict[str, float]:
        """Speed of one side over that of another: of the medians, and the range over rounds."""
        pairs = [b / a for a, b in zip(self.counted(over), self.counted(under), strict=True)]
        return {"of_medians": statistics.median(self.counted(under))
                / statistics.median(self.counted(over)), "min": min(pairs), "max": max(pairs)}

    def summary(self) -> dict:
        """How many rounds there were and were disturbed, and whether to trust the figures."""
        probes = [probe * 1e3 for probe in self.probes]
        found = {"run": len(self.void), "void": self.void.count(True),
                 "probe_milliseconds": {"median": statistics.median(probes), "min": min(probes),
                                        "max": max(probes)},
                 "probe_tolerance": self.tolerance, "trusted": self.trusted}
        if not self.trusted:
            found["warning"] = (f"only {self.void.count(False)} undisturbed rounds, {FEWEST} are "
                                "needed: all rounds are counted; the machine does other work")
        return found


def alternate(sides: Mapping[str, Callable[[], float]], probe: Callable[[], float], *,
              rounds: int, tolerance: float) -> Rounds:
    """Rounds of every side in turn, with a probe between any two, until `rounds` are undisturbed.

    sides, probe: run once and return their seconds; one at a time. tolerance: as of Rounds. There
    are at most MOST times as many rounds.
    """
    done = Rounds({name: [] for name in sides}, [probe()], tolerance)
    while done.void.count(False) < rounds and len(done.void) < MOST * rounds:
        for name, run in sides.items():
            done.seconds[name].append(run())
            done.probes.append(probe())
    return done


def tolerance() -> float:
    """The share by which a probe may differ: 0.03 on an accelerator, 0.1 on a CPU, which varies
    more."""
    import jax

    return 0.1 if jax.default_backend() == "cpu" else 0.03


def matmul(clock: Callable[[], float] = time.perf_counter) -> Callable[[], float]:
    """A probe: () -> seconds of ten products of fixed matrices on the first device."""
    import jax
    import jax.numpy as jnp

    size, dtype = (1024, "float32") if jax.default_backend() == "cpu" else (8192, "bfloat16")
    product = jax.jit(jnp.matmul)
    a = jax.block_until_ready(jnp.ones((size, size), dtype))

    def once() -> float:
        began = clock()
        for _ in range(10):
            last = product(a, a)
        jax.block_until_ready(last)
        return clock() - began

    def probe() -> float:
        once()  # not counted: threads of the last side may still run, clocks may still rise
        return once()

    return probe
