"""What the scripts of experiments/ import is public, and is there: most of them run elsewhere, with
torch or on an accelerator, and would tell nobody."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "experiments").rglob("*.py"))


def imports(script: Path) -> list[tuple[str, str]]:
    """(module, name imported from it or "") of ours, at the top of a file or inside functions."""
    found = []
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom):
            found += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
    return [(module, name) for module, name in found
            if module.split(".")[0] in ("imgcls_jax", "experiments", "tests")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_script_imports_what_is_public_and_there(script):
    assert "sys.path" not in script.read_text()
    for module, name in imports(script):
        assert module.split(".")[0] != "tests", module
        assert not f"{module}.{name}".startswith("imgcls_jax.cli._"), f"{module}.{name}"
        if not module.startswith("imgcls_jax"):
            assert (ROOT / module.replace(".", "/") / name).is_dir() or any(
                (ROOT / f"{path}.py").is_file()
                for path in (module.replace(".", "/"), f"{module.replace('.', '/')}/{name}"))
            continue
        found = importlib.import_module(module)
        assert not name or hasattr(found, name) or importlib.import_module(f"{module}.{name}")
