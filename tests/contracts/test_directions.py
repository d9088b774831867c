"""Which file may import which: an hourglass without circles, TensorFlow only where it is used."""

import ast
import graphlib
from pathlib import Path

import pytest

import imgcls_jax

ROOT = Path(imgcls_jax.__file__).parent
FILES = {path.relative_to(ROOT).with_suffix("").as_posix(): path
         for path in sorted(ROOT.rglob("*.py"))
         if "configs" not in path.relative_to(ROOT).parts}
GROUND = {"types", "registry", "tree", "errors"}
OPEN = {"models", "datasets", "transforms", "device_transforms", "losses", "metrics", "steps",
        "evaluators", "exporters", "optimizers", "schedules"}
# A file may import those of the rows below its own; `assembly` is the waist.
ROWS = ("cli __main__", "train predict programs", "assembly", "evaluators",
        "exporters",
        "resident",
        "feed",
        "caching",
        "pipeline examples recording input_faults salvage sampling optim checkpoint init "
        "pretrained",
        "models datasets transforms device_transforms losses metrics steps compress "
        "optimizers schedules report config sharding log workdir tasks runtime hlo topology "
        "manifest xla_flags",
        "features",
        "layers", "types registry tree errors __init__")
ROW = {name: number for number, names in enumerate(ROWS) for name in names.split()}


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


def ours(name: str, top: bool | None = None) -> set[str]:
    """Files of the package that a file imports, as keys of FILES; top: when it is imported."""
    found = set()
    for module, at_top in imports(FILES[name]):
        if module.split(".")[0] == "imgcls_jax" and top in (None, at_top):
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


def part(name: str) -> str:
    """"models/resnet" -> "models", "train" -> "train"."""
    return name.split("/")[0]


@pytest.mark.parametrize("name", sorted(GROUND))
def test_ground_imports_nothing_of_ours_but_errors(name):
    assert ours(name) <= {"errors"} - {name}


@pytest.mark.parametrize("name", [name for name in FILES if part(name) in OPEN])
def test_an_open_set_imports_ground_layers_and_its_own_folder(name):
    allowed = GROUND | {"layers", part(name)}
    allowed |= {"evaluators": {"pipeline", "metrics"},
                "exporters": {"pretrained"}}.get(part(name), set())
    assert {part(other) for other in ours(name)} <= allowed


@pytest.mark.parametrize("name", [name for name in FILES if part(name) == "layers"])
def test_layers_import_ground_and_layers(name):
    assert {part(other) for other in ours(name)} <= GROUND | {"layers"}


@pytest.mark.parametrize("name", [name for name in FILES if part(name) in ("models", "layers")])
def test_models_know_no_mesh(name):
    assert not any(module.startswith(("jax.sharding", "jax.experimental"))
                   and module != "jax.experimental.layout"  # of one array, on one device
                   for module, _ in imports(FILES[name]))
    names = {node.attr for node in ast.walk(ast.parse(FILES[name].read_text()))
             if isinstance(node, ast.Attribute)}
    assert not names & {"Mesh", "NamedSharding", "PartitionSpec", "with_sharding_constraint",
                        "psum", "pmean", "axis_name", "device_count"}


@pytest.mark.parametrize("name", [name for name in FILES if part(name) in ("datasets",
                                                                           "transforms")])
def test_data_never_imports_jax(name):
    assert not {"jax", "flax", "optax"} & set(theirs(name))


@pytest.mark.parametrize("name", FILES)
def test_tensorflow_is_imported_where_it_is_used_and_only_then(name):
    """A machine without TensorFlow, tensorflow-datasets and clu imports every file."""
    input_files = {"transforms", "datasets", "pipeline", "input_faults", "salvage",
                   "examples", "recording", "exporters"}
    allowed = {"tensorflow": input_files, "tensorflow_datasets": {"datasets"}, "clu": {"log"},
               "sklearn": {"datasets", "metrics", "evaluators", "cli"}}
    for package, at_top in theirs(name).items():
        if package in allowed:
            assert part(name) in allowed[package] and not at_top, package


@pytest.mark.parametrize("name", FILES)
def test_only_the_command_build_and_config_know_ml_collections(name):
    if "ml_collections" in theirs(name):
        assert part(name) in {"cli", "assembly", "config"}


@pytest.mark.parametrize("name", FILES)
def test_imports_go_down_the_spine(name):
    if name == "__init__":  # the public names, imported when first used
        return
    for other in ours(name):
        assert part(other) == part(name) or ROW[part(other)] > ROW[part(name)] or (
            ROW[part(other)] == ROW[part(name)] and part(other) not in OPEN), other


def test_there_is_no_circle():
    graphlib.TopologicalSorter({name: ours(name) for name in FILES
                                if name != "__init__"}).prepare()


def test_every_file_has_its_place():
    assert {part(name) for name in FILES} <= set(ROW)


@pytest.mark.parametrize("path", sorted((ROOT.parent / "configs").rglob("*.py")),
                         ids=lambda path: path.stem)
def test_a_config_imports_nothing_but_config_tools(path):
    assert {module for module, _ in imports(path)} <= {"ml_collections", "imgcls_jax.config"}


def test_no_file_is_a_drawer():
    assert not {path.stem for path in FILES.values()} & {"utils", "common", "helpers", "misc"}
