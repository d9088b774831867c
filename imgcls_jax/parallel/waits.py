"""Which process the others wait for, and an end to waiting for one that is gone.

Every process of a run waits for all others: in a sum over the devices, in a save. For one that
sleeps or is stopped they would wait without a word, until JAX ends them with a stack of C++. So
each process gives signs of life through JAX's coordination service, with the number of batches that
it has fed; one that makes no progress compares them.
"""

import atexit
import contextlib
import os
import sys
import threading
import time
from typing import Any

from imgcls_jax.errors import Stalled

PULSE = 5.0  # seconds between two signs of life
QUIET = 10.0  # seconds without a batch of its own after which a process listens to the others
WORD = 30.0  # after which the one that is waited for is named; then after twice as long, and so on
NOBODY = 300.0  # after which a line says that none is behind: all may be compiling
SILENT = 100.0  # without a sign of life of another; it gives none while C holds Python's lock
HEARTBEAT = 200  # after which JAX ends all processes, with a stack of C++
BOUND = 3600.0  # of waiting for one that gives them
KEY = "imgcls_jax/pulse"
ENDED = "ended"  # the last pulse of a process that waits for the others to end
TELLERS = (0, 1)  # processes that name others: two, for one of them may be the one that is named

_fed = 0  # batches of this process


def fed():
    """Called for every batch that this process puts on its devices."""
    global _fed
    _fed += 1


class Watch:
    """One process's view of the others. client: of the coordination service; index: its own."""

    def __init__(self, client: Any, index: int, now: float):
        self.client, self.index = client, index
        self.pulses: dict[int, str] = {}  # process -> "number of its sign of life, its batches"
        self.contact = now  # with the coordinator, process 0
        self._heard: dict[int, tuple[str, float]] = {}  # process -> its last pulse, when it came
        self._fed, self._since, self._next = -1, now, WORD

    def exchange(self, number: int, now: float):
        """Gives a sign of life, and hears those of the others while there is no progress."""
        self.client.key_value_set(f"{KEY}/{self.index}", f"{number} {_fed}", allow_overwrite=True)
        if now - self._since > QUIET:
            found = self.client.key_value_dir_get(KEY)
            self.pulses = {int(key.rpartition("/")[2]): pulse for key, pulse in found}
        self.contact = now

    def look(self, fed: int, now: float) -> str | None:
        """A line, where one is due; fed: the batches of this process. Raises Stalled."""
        if fed != self._fed:
            self._fed, self._since, self._next = fed, now, WORD
            self._heard = {}
            return None
        for process, pulse in self.pulses.items():
            if process != self.index and pulse != self._heard.get(process, ("", now))[0]:
                self._heard[process] = (pulse, now)
        there = {process: heard for process, heard in self._heard.items() if heard[0] != ENDED}
        silent = {process: now - at for process, (_, at) in there.items()}
        if self.index:
            silent[0] = max(silent.get(0, 0.0), now - self.contact)
        process = max(silent, key=lambda each: silent[each], default=self.index)
        if silent.get(process, 0) > SILENT:
            raise _stalled(process, f"gives no sign of life for {silent[process]:.0f} s")
        waited = now - self._since
        batches = {process: int(pulse.split()[1]) for process, (pulse, _) in there.items()}
        slowest = min(batches, key=lambda each: (batches[each], each), default=self.index)
        behind = batches.get(slowest, fed) < fed
        if behind and waited > BOUND:
            raise _stalled(slowest, f"has fed {batches[slowest]:,} batches where this one has fed "
                                    f"{fed:,}, for {waited:.0f} s")
        quiet = silent.get(process, 0) > WORD
        if waited < (self._next if behind or quiet else max(self._next, NOBODY)):
            return None
        self._next = 2 * waited
        if quiet:
            return f"process {process} gives no sign of life since {silent[process]:.0f} s"
        if not behind:
            return f"no batch since {waited:.0f} s, and no process is behind this one"
        return (f"waiting for process {slowest} since {waited:.0f} s: it has fed "
                f"{batches[slowest]:,} batches, this one {fed:,}")


def _stalled(process: int, what: str) -> Stalled:
    return Stalled(f"process {process} {what}", where="jax.distributed",
                   fix=f"look at the machine and the log of process {process}; run the same line "
                       "again to go on from the last checkpoint")


def start(client: Any, index: int):
    """Watches in the background, until this process ends."""
    watch, ended = Watch(client, index, time.monotonic()), threading.Event()

    def end():
        ended.set()
        with contextlib.suppress(Exception):
            client.key_value_set(f"{KEY}/{index}", ENDED, allow_overwrite=True)

    def give():
        number = 0
        while not ended.wait(PULSE):
            number += 1
            with contextlib.suppress(Exception):  # without an answer, `look` ends the process
                watch.exchange(number, time.monotonic())

    def listen():
        while not ended.wait(1):
            try:
                line = watch.look(_fed, time.monotonic())
            except Stalled as stalled:
                print(stalled, file=sys.stderr, flush=True)
                os._exit(Stalled.code)  # the main thread is within a collective
            if line and index in TELLERS:
                print(line, file=sys.stderr, flush=True)

    atexit.register(end)
    for loop in (give, listen):
        threading.Thread(target=loop, daemon=True).start()
