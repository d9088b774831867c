"""The profiler's traces: which operations a step spends its time on."""

import collections
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from imgcls_jax.bench import hlo
from imgcls_jax.errors import EnvironmentFailure


def record(run: Callable[[int], float], steps: int, folder: str, text: str, top: int = 15) -> dict:
    """Traces so many steps into a folder (for XProf or TensorBoard) and reads the trace.

    run: does so many steps. text: of the compiled program, which has the source of each operation.
    top: how many places are listed. Raises EnvironmentFailure if the profiler writes nothing.
    """
    import jax

    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # Python's events are many, and none is of a device
    with jax.profiler.trace(folder, profiler_options=options):
        run(steps)
    files = sorted(Path(folder).rglob("*.xplane.pb"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise EnvironmentFailure("the profiler wrote no trace", where=folder,
                                 fix="choose another folder for --profile")
    planes = jax.profiler.ProfileData.from_file(str(files[-1])).planes
    return {"trace": str(files[-1]),
            **costliest(events(planes), hlo.sources(text), steps, top)}


def events(planes: Iterable) -> list[tuple[str, float]]:
    """(operation, nanoseconds) of each run of an operation of a compiled program.

    On a GPU these are the kernels of its streams; on a CPU they are the host's own events.
    """
    planes = list(planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    lines = [line for plane in devices or planes for line in plane.lines]
    streams = [line for line in lines if line.name.startswith("Stream")]
    found = []
    for line in streams or lines:
        for event in line.events:
            operation = dict(event.stats).get("hlo_op")
            if operation:
                found.append((operation, event.duration_ns))
    return found


def costliest(runs: list[tuple[str, float]], sources: Mapping[str, tuple[str, str]], steps: int,
              top: int) -> dict:
    """Events -> the `top` places by time, each with its operations, milliseconds and share.

    A place is the source of an operation in the model, with one place for all blocks of a stage, or
    the operation's own name where its source is unknown. sources: as of hlo.sources. Loops and
    calls are left out: what is inside them is listed itself. Times are summed over threads or
    streams, and may together exceed the time of a step.
    """
    spent, names, count = collections.Counter(), collections.defaultdict(set), 0
    for operation, nanoseconds in runs:
        kind, source = sources.get(operation, ("", ""))
        if kind in hlo.FREE:
            continue
        place = re.sub(r"(block|layer)\d+", r"\1*", source) or operation.split(".")[0]
        spent[place] += nanoseconds
        names[place].add(operation)
        count += 1
    total = spent.total()
    rows = [{"place": place, "operations": sorted(names[place]),
             "milliseconds": nanoseconds / steps / 1e6, "share": nanoseconds / total}
            for place, nanoseconds in spent.most_common(top)]
    return {"runs_per_step": count / steps, "milliseconds_per_step": total / steps / 1e6,
            "costliest": rows}
