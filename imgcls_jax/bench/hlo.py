"""What a compiled program costs by XLA's own count: memory, FLOPs, bytes, cycles, collectives."""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# A computation begins with its name and signature, and ends with a brace on a line of its own.
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<shape>\(.*?\)|\S+) "
                          r"(?P<kind>[a-z][a-z\-]*)\((?P<rest>.*)$")
_ARRAY = re.compile(r"([a-z]+)(\d*)[a-z0-9]*\[([\d,]*)\]")
_CALLED = re.compile(r"(?:to_apply|calls|branch_computations|called_computations|"
                     r"true_computation|false_computation)=\{?((?:%[\w.\-]+(?:, )?)+)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_SOURCE = re.compile(r'op_name="([^"]*)"')
# Neither computes nor moves anything, or is accounted for where it is used.
FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "while",
        "conditional", "call", "opt-barrier", "partition-id", "replica-id", "domain"}


@dataclasses.dataclass(frozen=True)
class Operation:
    """An instruction that is run `times` times a step (in a loop: once per iteration)."""

    name: str
    shape: str  # of the result, as the text has it: "bf16[16,8]{1,0:T(8,128)}" or a tuple of such
    kind: str  # "fusion", "copy", "all-reduce", ...
    rest: str  # operands and attributes
    times: int

    @property
    def source(self) -> str:
        """The path of names that made it, such as "jvp(ResNet)/stage1_block0/conv1"."""
        match = _SOURCE.search(self.rest)
        return match[1] if match else ""

    @property
    def cycles(self) -> int | None:
        """Of one run, as the TPU compiler estimates; None where it does not."""
        match = _CYCLES.search(self.rest)
        return int(match[1]) if match else None

    @property
    def arrays(self) -> list[tuple[str, int]]:
        """(dtype, bytes) of each array of the result."""
        return [(kind + bits, math.prod(int(n) for n in shape.split(",") if n)
                 * int(bits or 8) // 8) for kind, bits, shape in _ARRAY.findall(self.shape)]


def operations(text: str) -> list[Operation]:
    """All that a step runs, with the bodies of loops and branches, without those of fusions."""
    computations, entry = _parse(text)
    found: dict[str, Operation] = {}

    def walk(name, times):
        for operation in computations.get(name, ()):
            known = found.get(operation.name)
            total = times + (known.times if known else 0)
            found[operation.name] = dataclasses.replace(operation, times=total)
            if operation.kind == "while":
                turns = _turns(operation.rest, computations)
                walk(_named(operation.rest, "body"), times * turns)
            elif operation.kind in ("call", "conditional") or operation.kind.startswith("async-"):
                for called in _called(operation.rest):
                    walk(called, times)

    walk(entry, 1)
    return list(found.values())


def collectives(text: str) -> dict[str, dict]:
    """Compiled HLO text -> {kind: {"count", "bytes", "dtypes": {dtype: bytes}}} of results.

    What is in a loop counts once per iteration. Of an asynchronous pair the second is counted: the
    shape of the first lists the operands as well.
    """
    found: dict = {}
    for operation in operations(text):
        kind = operation.kind.removesuffix("-done")
        if kind not in COLLECTIVES:
            continue
        row = found.setdefault(kind, {"count": 0, "bytes": 0, "dtypes": collections.Counter()})
        row["count"] += operation.times
        for dtype, size in operation.arrays:
            row["bytes"] += size * operation.times
            row["dtypes"][dtype] += size * operation.times
    return {kind: {**row, "dtypes": dict(row["dtypes"])} for kind, row in found.items()}


def cycles(text: str, top: int = 10) -> dict:
    """The TPU compiler's estimate for a step.

    cycles: the sum over all operations that it has an estimate for, without overlap and without
    communication; copies: that of copies alone. unpriced: number of other operations that do work,
    by kind. costliest: the `top` sources by cycles, with their share. custom_calls: by target.
    """
    total, copies, sources = 0, 0, collections.Counter()
    unpriced, custom = collections.Counter(), collections.Counter()
    for operation in operations(text):
        if operation.kind == "custom-call":
            target = re.search(r'custom_call_target="([^"]*)"', operation.rest)
            custom[target[1] if target else ""] += operation.times
        if operation.cycles is None:
            if operation.kind not in FREE:
                unpriced[operation.kind] += operation.times
            continue
        spent = operation.cycles * operation.times
        total += spent
        copies += spent if operation.kind == "copy" else 0
        sources[_short(operation.source) or operation.kind] += spent
    return {"cycles": total, "copies": copies, "unpriced": dict(unpriced),
            "custom_calls": dict(custom),
            "costliest": [{"source": source, "cycles": spent, "share": round(spent / total, 4)}
                          for source, spent in sources.most_common(top)]}


def summary(program) -> dict:
    """jax.stages.Compiled -> FLOPs, bytes accessed and peak bytes of one device, collectives.

    XLA counts the body of a loop once: the other iterations are added here (for FLOPs their matrix
    products alone, for bytes their operands and results).
    """
    costs = program.cost_analysis() or {}
    memory = program.memory_analysis()
    peak = 0 if memory is None else getattr(memory, "peak_memory_in_bytes", 0) or (
        memory.argument_size_in_bytes + memory.output_size_in_bytes
        + memory.temp_size_in_bytes - memory.alias_size_in_bytes)
    text = program.as_text()
    more_flops, more_bytes = _other_turns(text)
    return {"flops": costs.get("flops", 0.0) + more_flops,
            "bytes_accessed": costs.get("bytes accessed", 0.0) + more_bytes,
            "peak_bytes": peak, "collectives": collectives(text)}


def kernels(text: str) -> dict:
    """What a step launches, by the compiled text: {"per_step": count, "kinds": {kind: count}}.

    One for every operation that does work and for each iteration of its loop. A fusion is one
    operation. All branches of a conditional count, though only one is run. On a GPU these are its
    launches, except that a library (a custom call, listed by target) may launch several kernels in
    one call, and a command buffer launches many as one.
    """
    kinds = collections.Counter()
    for operation in operations(text):
        # An asynchronous operation is launched where it starts; async-start only wraps another.
        if operation.kind in FREE or operation.kind.endswith(("-done", "-update")) \
                or operation.kind.startswith("async-"):
            continue
        kind = operation.kind.removesuffix("-start")
        if kind == "custom-call":
            target = re.search(r'custom_call_target="([^"]*)"', operation.rest)
            kind = target[1] if target else kind
        kinds[kind] += operation.times
    return {"per_step": kinds.total(), "kinds": dict(kinds.most_common())}


def sources(text: str) -> dict[str, tuple[str, str]]:
    """{operation: (kind, its source, the path of names in the model)} of all that a step runs."""
    return {o.name: (o.kind, _short(o.source)) for o in operations(text)}


def moved(text: str) -> float:
    """Bytes of the operands and results of all operations, in loops once per iteration.

    XLA itself does not count those of custom calls, which most matrix products are on a GPU.
    """
    return float(sum(size * times for times, _, size in _traffic(text)))


# ---- the text -------------------------------------------------------------------------------


def _parse(text: str) -> tuple[dict[str, list[Operation]], str]:
    """({computation: its instructions}, the entry's name)."""
    computations: dict[str, list[Operation]] = {}
    entry, inside = "", None
    for line in text.splitlines():
        if line.startswith("}"):
            inside = None
        elif inside is None:
            if match := _COMPUTATION.match(line):
                inside = computations.setdefault(match[2], [])
                entry = match[2] if match[1] else entry
        elif match := _INSTRUCTION.match(line):
            inside.append(Operation(times=1, **match.groupdict()))
    return computations, entry


def _named(rest: str, attribute: str) -> str:
    match = re.search(rf"\b{attribute}=%?([\w.\-]+)", rest)
    return match[1] if match else ""


def _called(rest: str) -> list[str]:
    return [name.strip().lstrip("%") for match in _CALLED.finditer(rest)
            for name in match[1].split(",")]


def _turns(rest: str, computations) -> int:
    """Iterations of a loop: from the compiler, or the constant that its condition compares with."""
    if match := re.search(r'known_trip_count[^}]*?"n":"(\d+)"', rest):
        return int(match[1])
    condition = computations.get(_named(rest, "condition"), ())
    constants = [int(match[1]) for operation in condition if operation.kind == "constant"
                 and (match := re.match(r"(\d+)\)", operation.rest))]
    return max(constants, default=1)


def _short(source: str) -> str:
    """"jit(step)/while/body/jvp(ResNet)/stage1/conv" -> "jvp(ResNet)/stage1/conv"."""
    parts = [part for part in source.split("/")
             if part not in ("while", "body", "closed_call", "eval_jaxpr", "checkpoint")
             and not re.fullmatch(r"jit\(.*\)", part)]
    return "/".join(parts)


def products(text: str) -> float:
    """FLOPs of all convolutions and dots of a step, in loops once per iteration."""
    return sum(flops * times for times, flops, _ in _traffic(text))


def _other_turns(text: str) -> tuple[float, float]:
    """FLOPs of products and bytes of operands and results, in all loop iterations but the first."""
    rows = [(times - 1, flops, moved) for times, flops, moved in _traffic(text)]
    return (float(sum(times * flops for times, flops, _ in rows)),
            float(sum(times * moved for times, _, moved in rows)))


def _traffic(text: str) -> Iterator[tuple[int, float, int]]:
    """(times, FLOPs of products, bytes of operands and results) of each operation."""
    computations, _ = _parse(text)
    shapes = {o.name: o for body in computations.values() for o in body}
    for operation in operations(text):
        if operation.kind in FREE:
            continue
        operands = [shapes[name] for name in re.findall(r"%([\w.\-]+)", operation.rest.split(
            "), ")[0]) if name in shapes]
        moved = sum(size for o in (operation, *operands) for _, size in o.arrays)
        yield operation.times, sum(_products(operation, shapes, computations)), moved


def _products(operation: Operation, shapes, computations) -> Iterator[float]:
    """FLOPs of each convolution or dot that an operation is or has inside."""
    if operation.kind == "fusion":
        for called in _called(operation.rest):
            for o in computations.get(called, ()):
                yield from _products(o, shapes, computations)
    elif operation.kind in ("convolution", "dot"):
        operands = [shapes[name] for name in re.findall(r"%([\w.\-]+)", operation.rest)[:2]
                    if name in shapes]
        if len(operands) == 2:
            count = _of_dot if operation.kind == "dot" else _of_convolution
            yield 2.0 * count(operation.rest, *map(_dimensions, (operation, *operands)))


def _dimensions(operation: Operation) -> list[int]:
    match = _ARRAY.search(operation.shape)
    return [int(n) for n in match[3].split(",") if n] if match else []


def _of_dot(rest: str, result: list[int], left: list[int], _) -> int:
    match = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", rest)
    return math.prod(result) * math.prod(
        left[int(axis)] for axis in (match[1].split(",") if match and match[1] else ()))


def _of_convolution(rest: str, result: list[int], image: list[int], kernel: list[int]) -> int:
    """Multiplications, without those by padding or by the holes of a dilated input, as XLA does."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", rest)
    window = re.search(r"window=\{([^}]*)\}", rest)
    given = dict(re.findall(r"(\w+)=(\S+)", window[1] if window else ""))
    count = math.prod(n for label, n in zip(labels[3], result, strict=True) if label in "bf")
    count *= kernel[labels[2].index("i")]
    for axis in (label for label in labels[3] if label.isdigit()):
        size = {key: given[key].split("x")[int(axis)] for key in given}
        count *= _meetings(
            result[labels[3].index(axis)], kernel[labels[2].index(axis)],
            image[labels[1].index(axis)], int(size.get("stride", 1)),
            int(size.get("pad", "0_0").split("_")[0]), int(size.get("lhs_dilate", 1)),
            int(size.get("rhs_dilate", 1)))
    return count


@functools.cache
def _meetings(out: int, kernel: int, image: int, stride: int, pad: int, holes: int,
              dilation: int) -> int:
    """Pairs of a place of the result and one of the kernel that meet a pixel, along one axis."""
    places = (o * stride + k * dilation - pad for o in range(out) for k in range(kernel))
    return sum(p % holes == 0 and 0 <= p // holes < image for p in places)
