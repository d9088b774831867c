"""Durations in a config, dict(epochs=90), dict(steps=1000) or dict(examples=...), and its
phases."""

import math
from collections.abc import Mapping

from imgcls_jax.errors import ConfigError

UNITS = ("epochs", "steps", "examples")


def is_duration(value) -> bool:
    return isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in UNITS


def steps(duration: Mapping, *, examples: int, batch_size: int, where: str) -> int:
    """A duration -> whole steps, at least 1. `examples`: the size of the training split."""
    if not is_duration(duration):
        raise ConfigError(f"{where}={duration!r} is not a duration", where=f"config.{where}",
                          fix="use dict(epochs=...), dict(steps=...) or dict(examples=...)")
    (unit, value), = duration.items()
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        raise ConfigError(f"{where}.{unit}={value!r} is not a number above 0",
                          where=f"config.{where}.{unit}", fix="use a number above 0")
    scale = {"epochs": examples / batch_size, "steps": 1, "examples": 1 / batch_size}[unit]
    return max(1, round(value * scale))


def resolve(value, *, examples: int, batch_size: int, where: str):
    """`value` with every duration inside it converted to steps.

    A choice of data holds no durations: a dataset's `examples` is a number.
    """
    given = dict(examples=examples, batch_size=batch_size)
    if is_duration(value):
        return steps(value, **given, where=where)
    if isinstance(value, Mapping):
        if any(unit in value for unit in UNITS):
            steps(value, **given, where=where)  # a unit next to another key: refused
        return {k: v if k == "data" else resolve(v, **given, where=f"{where}.{k}")
                for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(resolve(v, **given, where=f"{where}[{i}]") for i, v in enumerate(value))
    return value


# ---- phases ---------------------------------------------------------------------------------


def phases(config) -> int:
    """The number of phases of training: the number of values in any dict(phases=(...)), else 1.

    Training is cut into phases of equal length, and each phase uses the next of these values, as
    image size and strength of augmentation do in EfficientNetV2 (arXiv 2104.00298, section 4.2).
    """
    found = sorted(phased(config, ""), key=lambda one: len(one[1]))
    if found and len(found[0][1]) != len(found[-1][1]):
        (one, few), (other, many) = found[0], found[-1]
        raise ConfigError(f"{one} has {len(few)} phases and {other} has {len(many)}",
                          where=f"config.{one}", fix="use the same number of phases everywhere")
    if found and not found[0][1]:
        raise ConfigError(f"{found[0][0]}=dict(phases=()) is empty", where=f"config.{found[0][0]}",
                          fix="write it as dict(phases=(128, 192, 256))")
    return len(found[0][1]) if found else 1


def phased(value, path: str) -> list[tuple[str, tuple]]:
    if isinstance(value, Mapping):
        if set(value) == {"phases"} and isinstance(value["phases"], tuple):
            return [(path, value["phases"])]
        return [one for key, inner in value.items()
                for one in phased(inner, f"{path}.{key}" if path else key)]
    if isinstance(value, tuple):
        return [one for i, inner in enumerate(value) for one in phased(inner, f"{path}[{i}]")]
    return []


def at_phase(value, number: int):
    """`value` with every dict(phases=(...)) inside it replaced by the entry of a phase."""
    if isinstance(value, Mapping):
        if set(value) == {"phases"}:
            return value["phases"][number]
        return {key: at_phase(inner, number) for key, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(at_phase(inner, number) for inner in value)
    return value
