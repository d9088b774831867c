"""Which file may import which: an hourglass without circles, TensorFlow only where it is used."""

import ast
import graphlib
from pathlib import Path

import pytest

from imgcls_jax.config import KEYS
from tests.contracts import wings
from tests.contracts.wings import FILES, GROUND, OPEN, ROOT, imports, ours, row, theirs, wing

CHECKOUT = ROOT.parent
WAIST = {"assembly", "cli"}


def of(*names: str) -> list[str]:
    return [name for name in FILES if wing(name) in names]


def test_the_table_has_a_row_for_every_wing_and_none_for_what_is_not_there():
    assert sorted(wings.WINGS) == sorted({wing(name) for name in FILES} - {"__init__"})


def test_imports_go_down():
    up = {name: other for name in FILES if name != "__init__" for other in ours(name)
          if wing(other) != wing(name) and row(wing(other)) <= row(wing(name))}
    assert not up


def test_there_is_no_circle():
    graphlib.TopologicalSorter({name: ours(name) for name in FILES
                                if name != "__init__"}).prepare()


def test_ground_imports_nothing_of_ours_but_errors():
    for name in of(*GROUND):
        assert ours(name) <= {"errors"}, name


def test_an_open_set_imports_ground_layers_decoding_and_its_own_folder():
    for name in of(*OPEN):
        allowed = {*GROUND, wing(name), "layers"}
        if wing(name) in ("datasets", "transforms"):
            allowed |= {"data/decoding"}
        assert {wing(other) for other in ours(name)} <= allowed, name


def test_models_know_no_mesh():
    for name in of("models", "layers"):
        assert not any(module.startswith(("jax.sharding", "jax.experimental"))
                       and module != "jax.experimental.layout"  # of one array, on one device
                       for module, _ in imports(FILES[name])), name
        names = {node.attr for node in ast.walk(ast.parse(FILES[name].read_text()))
                 if isinstance(node, ast.Attribute)}
        assert not names & {"Mesh", "NamedSharding", "PartitionSpec", "with_sharding_constraint",
                            "psum", "pmean", "axis_name", "device_count"}, name


def test_data_never_imports_jax():
    for name in of("datasets", "transforms", "samplers", "data/decoding"):
        assert not {"jax", "flax", "optax"} & set(theirs(name)), name


def test_heavy_packages_are_imported_where_they_are_used_and_only_then():
    """A machine without TensorFlow, tensorflow-datasets and clu imports every file."""
    allowed = {"tensorflow": {"data/decoding"}, "tensorflow_datasets": {"datasets"},
               "clu": {"training"}, "sklearn": {"datasets", "metrics", "evaluators", "bench"}}
    for name in FILES:
        for package, at_top in theirs(name).items():
            if package in allowed:
                assert wing(name) in allowed[package] and not at_top, (name, package)
    # One door: whatever comes first finds TensorFlow with our settings, off the accelerators.
    assert [name for name in FILES if "tensorflow" in theirs(name)] == ["data/decoding/tensorflow"]


def test_only_the_waist_and_config_know_ml_collections():
    for name in FILES:
        if "ml_collections" in theirs(name):
            assert wing(name) in WAIST | {"config"}, name


# ---- the law of the waist -------------------------------------------------------------------


def bound(tree: ast.AST) -> list[int]:
    """Lines that look a name up in a registry: `REGISTRY.bind(...)`, `bind(...)`."""
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call)
            and "bind" in (getattr(node.func, "attr", None), getattr(node.func, "id", None))]


def read(tree: ast.AST) -> list[int]:
    """Lines that read a key of a config: `config["model"]`, `run.config.get("model")`."""
    def is_config(node) -> bool:
        return (getattr(node, "id", None) in ("config", "configuration", "c", "chosen", "loaded")
                or getattr(node, "attr", None) == "config")

    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and is_config(node.value):
            key = node.slice
        elif (isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "get"
              and is_config(node.func.value) and node.args):
            key = node.args[0]
        else:
            continue
        if isinstance(key, ast.Constant) and key.value in KEYS:
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("text, lines", [
    ("METRICS.bind(of, 'x')", ([1], [])), ("bind(f, {}, 'x')", ([1], [])),
    ("config['model']['name']", ([], [1])), ("run.config.get('seed', 0)", ([], [1])),
    ("config['versions']", ([], [])), ("rows['model']", ([], []))])
def test_a_breach_of_the_law_is_seen(text, lines):
    assert (bound(ast.parse(text)), read(ast.parse(text))) == lines


def test_configs_are_read_and_names_bound_in_the_waist_alone():
    breaches = [f"{name}.py:{line}" for name, path in FILES.items()
                if wing(name) not in WAIST | {"registry", "config", "durations"}
                for find in (bound, read) for line in find(ast.parse(path.read_text()))]
    assert not breaches


# ---- the tree -------------------------------------------------------------------------------


def test_the_house_stays_small():
    folders = {Path(name).parent for name in FILES}
    assert len([name for name in FILES if "/" not in name]) <= 14
    assert len(folders) <= 26
    assert not {path.stem for path in FILES.values()} & {"utils", "common", "helpers", "misc"}


def test_the_page_of_the_architecture_is_what_the_imports_say():
    page = (CHECKOUT / "docs" / "architecture.md").read_text()
    assert page == wings.page(), "python -m tests.contracts.wings > docs/architecture.md"


def test_what_must_be_read_before_changing_the_step():
    def lines(*names: str) -> int:
        return sum(len(FILES[name].read_text().splitlines()) for name in names)

    step = lines("types", "steps/__init__", "steps/_update", "steps/_guard", "steps/supervised")
    assert step <= 500
    around = lines("training/loop", *of("assembly"))
    # 1,700 until features of a frozen network could take the place of images (assembly/probe.py).
    assert step + around <= 1880


@pytest.mark.parametrize("path", sorted((CHECKOUT / "configs").rglob("*.py")),
                         ids=lambda path: path.stem)
def test_a_config_imports_nothing_but_config_tools(path):
    assert {module for module, _ in imports(path)} <= {"ml_collections", "imgcls_jax.config"}
