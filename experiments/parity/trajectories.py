"""What the recorded optimizers were run on: four parameters, a gradient of each at every step.

numpy only, for the recorder and the tests alike. A gradient holds a part of the parameter, so that
a difference at one step goes on into all that follow.
"""

import zlib

import numpy as np

STEPS, KEPT = 10, (1, 2, 10)
PEAK, LAST = 0.1, 0.04  # the learning rate falls from the one towards the other in a straight line
DECAY = 0.05  # of kernels
SHAPES = {"conv/kernel": (6, 4, 3, 3), "dense/kernel": (5, 8), "dense/bias": (5,),
          "scale": (6,)}  # as torch has them: OIHW and OI
LOSSES = (2.0, 1.5, 1.5, 1.4999, 1.6, 1.2, 1.3, 1.25, 1.4, 1.19995, 1.3, 1.21, 1.0, 1.1, 1.2, 1.1,
          1.05, 1.3, 0.99995, 1.4, 0.9)  # for a plateau


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """f64 in -1 to 1, by the name alone."""
    numbers = np.random.Generator(np.random.Philox(np.random.SeedSequence(
        [5, zlib.crc32(name.encode())])))
    return 2 * numbers.random(shape, np.float64) - 1


def parameters() -> dict[str, np.ndarray]:
    """One of them is all zero, as the last scale of a residual block may be."""
    return {name: draw(name, shape) * (name != "scale") for name, shape in SHAPES.items()}


def gradient(name: str, value: np.ndarray, step: int) -> np.ndarray:
    return draw(f"{name} at {step}", SHAPES[name]) + 0.3 * value


def rate(step: int) -> float:
    return PEAK + (LAST - PEAK) * step / STEPS


def decay(name: str) -> float:
    return DECAY if name.endswith("kernel") else 0.0
