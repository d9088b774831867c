"""Lines that say how far a long task has come."""

import sys
import time

from imgcls_jax.errors import printable

EVERY = 10  # seconds between two lines


class Progress:
    """Prints to the standard error how much of `total` is done and how long the rest takes."""

    def __init__(self, name: str, total: int):
        self._name, self._total, self._done = name, total, 0
        self._began = self._told = time.monotonic()

    def add(self, count: int):
        self._done += count
        now = time.monotonic()
        if now - self._told > EVERY:
            self._told = now
            left = (now - self._began) * (self._total - self._done) / self._done
            print(printable(f"{self._name}: {self._done:,} of {self._total:,}, {left / 60:.0f} min "
                            "left"), file=sys.stderr, flush=True)
