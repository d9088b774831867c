"""A learning-rate range test (arXiv 1506.01186, section 3.3): losses under a rising rate."""

import math
from collections.abc import Sequence

import numpy as np

from imgcls_jax.parallel import transfer
from imgcls_jax.training import programs
from imgcls_jax.types import Run

SMOOTHING = 0.95  # share of the mean of the losses so far that stays
DIVERGED = 4.0  # times the lowest


def measure(run: Run) -> tuple[list[float], list[float]]:
    """(learning rates, losses in nats): of each step its rate and the mean loss of its batch.

    run: its schedule is the rise. It ends early at a loss that is not finite, and when the smoothed
    loss is over DIVERGED times its lowest.
    """
    step, _ = programs.compile_step(run).result()
    state, mean, lowest = run.init(), 0.0, math.inf
    rates: list[float] = []
    losses: list[float] = []
    for _, batch in transfer.prefetch(run.batches(0), run.put):
        state, sums = step(state, batch)
        if sums["nonfinite"]:
            break
        rates.append(float(sums["learning_rate"]))
        losses.append(float(sums["loss"]) / run.batch_size)
        mean = smooth(losses)[-1]
        lowest = min(lowest, mean)
        if len(rates) == run.total_steps or mean > DIVERGED * lowest:
            break
    return rates, losses


def smooth(losses: Sequence[float]) -> list[float]:
    """The exponential moving average of losses, corrected for its start at 0."""
    found, mean = [], 0.0
    for i, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        found.append(mean / (1 - SMOOTHING**i))
    return found


def choose(rates: Sequence[float], losses: Sequence[float]) -> dict[str, float]:
    """steepest: the rate where the loss falls fastest; tenth: a tenth of that of the lowest loss.

    The first tenth of the steps is left out: the moving average of few batches is noisy.
    """
    first = len(rates) // 10
    lowest = first + int(np.argmin(losses[first:]))
    slope = np.gradient(np.asarray(losses), np.log(rates))
    steepest = first + int(np.argmin(slope[first:lowest + 1]))
    return {"steepest": rates[steepest], "tenth": rates[lowest] / 10}
