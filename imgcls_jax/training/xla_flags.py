"""XLA's flags that a measurement chose, each with the figure that did: nothing else sets any.

`experiments/bench/flags.py` measures: it tries each candidate alone, in turns with the plain step,
and says which are faster by more than the rounds differ among themselves. What it found faster may
be entered here, with the record it made. Nothing is entered on someone's advice.
"""

import dataclasses
import os
import re


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of XLA, `gain`: images per second with it over without it, where `measured`."""

    value: bool | int | float | str
    gain: float
    measured: str  # device, model and date, as the record has them


# By platform of the devices. No GPU or TPU has been at hand yet; what was tried on a CPU, and won
# nothing, stands in experiments/bench/flags.json.
CHOSEN: dict[str, dict[str, Flag]] = {"cpu": {}, "gpu": {}, "tpu": {}}


def options(platform: str) -> dict[str, bool | int | float | str] | None:
    """Compiler options for programs of devices of that platform; None where there are none.

    They go with the program and not into $XLA_FLAGS, where XLA would end the process for a flag
    that it does not know. What a user put into $XLA_FLAGS is theirs and stays.
    """
    theirs = re.findall(r"--(\w+)", os.environ.get("XLA_FLAGS", ""))
    return {name: flag.value for name, flag in CHOSEN.get(platform, {}).items()
            if name not in theirs} or None
