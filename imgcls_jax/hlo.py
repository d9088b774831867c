"""What a compiled program costs: memory, FLOPs, bytes, collectives. Reads XLA's own accounts."""

import collections
import re

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# Of an asynchronous pair, -start also lists the operands in its shape; -done is the result alone.
_OPERATION = re.compile(r"= (?P<shape>.+?) (?P<name>" + "|".join(COLLECTIVES)
                        + r")(?:-done)?\(")
_ARRAY = re.compile(r"([a-z]+)(\d+)[a-z0-9]*\[([\d,]*)\]")


def collectives(text: str) -> dict[str, dict[str, int]]:
    """Compiled HLO text -> {kind: {"count", "bytes"}}; bytes are those of the results."""
    found: dict = collections.defaultdict(lambda: {"count": 0, "bytes": 0})
    for match in _OPERATION.finditer(text):
        row = found[match["name"]]
        row["count"] += 1
        for _, bits, shape in _ARRAY.findall(match["shape"]):
            size = 1
            for n in filter(None, shape.split(",")):
                size *= int(n)
            row["bytes"] += size * int(bits) // 8
    return dict(found)


def summary(program) -> dict:
    """jax.stages.Compiled -> FLOPs, bytes accessed and peak bytes of one device, collectives."""
    costs = program.cost_analysis() or {}
    memory = program.memory_analysis()
    peak = 0 if memory is None else (
        memory.argument_size_in_bytes + memory.output_size_in_bytes
        + memory.temp_size_in_bytes - memory.alias_size_in_bytes)
    return {"flops": costs.get("flops", 0.0), "bytes_accessed": costs.get("bytes accessed", 0.0),
            "peak_bytes": peak, "collectives": collectives(program.as_text())}
