"""The XLA flags that were measured to be faster, each with its figure: nothing else sets any.

`experiments/bench/flags.py` measures: it tries each candidate alone, in turns with the plain step,
and prints which are faster by more than the rounds differ among themselves. What it finds faster
may be entered here, with its result record. Without a measurement nothing is entered.
"""

import dataclasses
import os
import re


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of XLA, `gain`: images per second with it over without it, where `measured`."""

    value: bool | int | float | str
    gain: float
    measured: str  # device, model and date, as in the result record


# By platform of the devices. GPUs and TPUs have not been measured yet; what was tried on a CPU, and
# was not faster, is in experiments/bench/flags.json.
CHOSEN: dict[str, dict[str, Flag]] = {"cpu": {}, "gpu": {}, "tpu": {}}


def options(platform: str) -> dict[str, bool | int | float | str] | None:
    """Compiler options for programs of devices of that platform; None where there are none.

    They are passed with the program, not in $XLA_FLAGS, where XLA would end the process for a flag
    that it does not know. What a user has set in $XLA_FLAGS stays.
    """
    theirs = re.findall(r"--(\w+)", os.environ.get("XLA_FLAGS", ""))
    return {name: flag.value for name, flag in CHOSEN.get(platform, {}).items()
            if name not in theirs} or None
