"""What is generated is what its sources say now; what links point at is there."""

import ast
import re
from urllib.parse import unquote

import pytest
import yaml

import imgcls_jax
from docs import tables
from experiments.bench import record
from imgcls_jax.models import MODELS
from tests.docs.blocks import BLOCK, PAGES, ROOT

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", tables.PAGES)
def test_the_tables_of_a_page_are_those_of_the_records(page):
    text = (ROOT / page).read_text()
    assert tables.BLOCK.search(text)
    assert tables.fill(text) == text, "stale: run python -m docs.tables"


def test_the_page_of_the_benchmarks_is_that_of_their_records():
    assert record.table() == (ROOT / "experiments/bench/README.md").read_text(), (
        "stale: run python -m experiments.bench.record")


def test_the_tables_have_every_model_and_no_number_but_of_a_record():
    assert set(re.findall(r"^\| `(\w+)` ", tables.variants(), re.M)) == set(MODELS.names())
    families = re.findall(r"^\| \[.*?\]\((.*?)\) \| (\d+)", tables.models(), re.M)
    assert sum(int(count) for _, count in families) == len(MODELS.names())
    assert all((ROOT / path).is_file() for path, _ in families)


@pytest.mark.parametrize("folder", ["bench", "parity", "sweeps"])
def test_the_page_of_a_folder_of_experiments_names_all_its_scripts(folder):
    page = (ROOT / "experiments" / folder / "README.md").read_text()
    for script in (ROOT / "experiments" / folder).glob("*.py"):
        named = f"experiments.{folder}.{script.stem}" if runs(script) else f"`{script.name}`"
        assert named in page, script.name


def runs(script) -> bool:
    return any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)
               for node in ast.parse(script.read_text()).body)


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md", "SECURITY.md"])
def test_links_lead_to_files_and_headings_that_exist(page):
    text = BLOCK.sub("", (ROOT / page).read_text())
    for target in LINK.findall(text):
        if re.match(r"https?://", target):
            continue
        path, _, heading = unquote(target).partition("#")
        place = (ROOT / page).parent / path if path else ROOT / page
        assert place.exists(), f"{page}: {target}"
        if heading:
            assert heading in anchors(place.read_text()), f"{page}: {target}"


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == imgcls_jax.__version__
    assert {"cff-version", "message", "title", "authors", "license"} <= set(cited)


def anchors(text: str) -> set[str]:
    """Of the headings of a page, as repository hosts make them."""
    titles = re.findall(r"^#+ (.*)$", BLOCK.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
