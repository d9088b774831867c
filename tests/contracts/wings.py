"""The wings of the package and the imports between them, read from the source with `ast`.

`python -m tests.contracts.wings` prints docs/architecture.md.
"""

import ast
import functools
from pathlib import Path

import imgcls_jax

ROOT = Path(imgcls_jax.__file__).parent
FILES = {path.relative_to(ROOT).with_suffix("").as_posix(): path
         for path in sorted(ROOT.rglob("*.py"))
         if "configs" not in path.relative_to(ROOT).parts}
GROUND = ("types", "registry", "tree", "errors", "environment", "untrusted")
OPEN = ("models", "datasets", "transforms", "device_transforms", "samplers", "losses", "metrics",
        "steps", "optimizers", "schedules")
# A wing may import those of the rows below its own.
ROWS = (("cli",),
        ("bench",),
        ("training", "predict", "data/curation"),
        ("assembly",),
        ("evaluators", "exporters"),
        ("data",),
        ("optim", "pretrained"),
        ("checkpoint", "config", "parallel"),
        ("init", "features", "tasks", "durations"),
        OPEN,
        ("layers", "data/decoding"),
        ("types", "registry", "tree", "environment", "untrusted"),
        ("errors",))
WHAT = {
    "cli": "the command: one file a verb; flags, one call, print",
    "bench": "measuring the step, the input, the start, and what compilers make of the step",
    "training": "Run -> results: the loop, its meter, evaluations, resume, log, workdir",
    "predict": "a trained model as a function of images",
    "data/curation": "looking at a dataset and preparing it",
    "assembly": "config -> Run: the one place that reads configs and binds names to functions",
    "evaluators": "variables -> metrics of a split",
    "exporters": "a model -> a file that others read",
    "data": "a split -> batches on the host: order, streams, caches, faults",
    "optim": "optimizer, schedule, decay, clipping, freezing as one transformation",
    "checkpoint": "save, restore, verify",
    "pretrained": "published weights: catalogue, fetching, reading, renaming",
    "config": "a name and overrides -> one checked config",
    "parallel": "the mesh, sharding rules, transfer, several processes",
    "init": "initial variables from shapes",
    "features": "what a model computes before its head",
    "tasks": "what labels mean: binary, multiclass, multilabel",
    "durations": "epochs, steps, examples; phases",
    "models": "architectures", "datasets": "classes, sizes, and how to read an example",
    "transforms": "of one example, on the host", "device_transforms": "of a batch, in the step",
    "samplers": "how often each example comes", "losses": "per example",
    "metrics": "sums, or rows of examples", "steps": "(state, batch) -> (state, Sums)",
    "optimizers": "from gradients to updates", "schedules": "the learning rate over time",
    "layers": "blocks that two model families or more use",
    "data/decoding": "bytes -> pixels by one rule; the one door to TensorFlow",
    "types": "what the parts of a run hand to each other",
    "registry": "a name in a config -> a function, its signature the schema",
    "tree": "pytrees by path", "errors": "what, where, how to fix; exit codes",
    "environment": "versions, commit, devices",
    "untrusted": "files of others: opened if they are files, read within a budget",
}
WINGS = tuple(wing for row in ROWS for wing in row)


def wing(name: str) -> str:
    """"models/resnet" -> "models", "data/decoding/pillow" -> "data/decoding"."""
    if name == "__main__":  # `python -m imgcls_jax`
        return "cli"
    parts = name.split("/")
    inner = "/".join(parts[:2])
    return inner if inner in WINGS and len(parts) > 2 else parts[0]


def row(name: str) -> int:
    """The number of the row that a wing stands in, from the top."""
    return next(number for number, wings in enumerate(ROWS) if name in wings)


@functools.cache
def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, whether it is imported when the file is); a module b of `from a import b` is a.b."""
    tree = ast.parse(path.read_text())
    inside = {node for outer in ast.walk(tree)
              if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
              for node in ast.walk(outer) if node is not outer}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node not in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                ours = full.removeprefix("imgcls_jax.").replace(".", "/")
                module = ours in FILES or f"{ours}/__init__" in FILES
                found.append((full if module else node.module, node not in inside))
    return found


def ours(name: str) -> set[str]:
    """Files of the package that a file imports, as keys of FILES."""
    found = set()
    for module, _ in imports(FILES[name]):
        if module.split(".")[0] == "imgcls_jax":
            key = module.removeprefix("imgcls_jax").lstrip(".").replace(".", "/")
            found.add(key if key in FILES else f"{key}/__init__".lstrip("/"))
    return found - {name}


def theirs(name: str) -> dict[str, bool]:
    """Foreign packages that a file imports -> whether any is imported when the file is."""
    found: dict[str, bool] = {}
    for module, at_top in imports(FILES[name]):
        package = module.split(".")[0]
        found[package] = found.get(package, False) or at_top
    return found


def arrows() -> dict[str, set[str]]:
    """Wing -> the other wings that its files import."""
    found: dict[str, set[str]] = {name: set() for name in WINGS}
    for name in FILES:
        if name != "__init__":  # the public names, imported when first used
            found[wing(name)] |= {wing(other) for other in ours(name)}
    return {name: others - {name, "__init__"} for name, others in found.items()}


def page() -> str:
    """docs/architecture.md."""
    table, between = [], arrows()
    for number, wings in enumerate(ROWS, 1):
        for name in wings:
            others = sorted(between[name] - set(GROUND), key=WINGS.index)
            table.append(f"| {number} | `{name}` | {WHAT[name]} | {', '.join(others)} |")
    return HEAD + "\n".join(table) + "\n" + TAIL


HEAD = """# Architecture

Printed from the imports by `python -m tests.contracts.wings`; a test fails where this page is
stale. A *wing* is a folder of the package, or one of the few files at its top. Many commands use
one `assembly/`, which combines many small functions: a wing imports only wings of the rows below
its own, and there is no circle of imports. The last two rows are the ground, which every wing may
import; they are left out of the last column.

## Three laws

1. **Open sets are folders, closed things are files.** What people extend (models, datasets,
   transforms, samplers, losses, metrics, evaluators, steps, optimizers, schedules, exporters) is a
   folder that is scanned: one new file is one new thing, and no table, `__init__` or flag is
   edited. What must stay one thing (the loop, the mesh, the checkpoint) is one file.
2. **The loop is closed, the step is open.** Distillation, SAM or sparse training are new step
   functions, never a second loop.
3. **The config stops at `assembly/`.** Below it there are only objects and pure functions: no
   file reads a config or looks a name up in a registry.

## Wings

| row | wing | what | imports, in addition to the ground |
|---|---|---|---|
"""
TAIL = """
## One way through

`imgcls train --config=NAME`: `cli/train.py` reads the flags, `config.load` the config,
`assembly.build` makes a `types.Run` of it, and `training.loop.train` runs that. To change what a
training step computes (loss, gradients, state), read `types.py`, `steps/__init__.py`,
`steps/_update.py` and `steps/supervised.py`; to change what happens between gradient and update
(clipping, decay, freezing, the learning rate), `optim.py`; to change what surrounds the step,
`training/loop.py` and `assembly/`.
"""

if __name__ == "__main__":
    print(page(), end="")
