"""Every command and every piece of Python on the pages. By default all are parsed, and the front
page is run; nightly all pages are run, each in the order in which it is read."""

import ast
import re

import pytest

from tests.docs import blocks, session

RUN = [page for page in blocks.PAGES if any(block.language in ("bash", "python")
                                            for block in blocks.read(page))]
LANGUAGES = ("bash", "python", "text", "json")


@pytest.mark.parametrize("page", RUN)
def test_commands_are_ones_that_the_command_line_takes(page):
    for block in blocks.read(page):
        assert block.language in LANGUAGES, f"{page}, line {block.line}"
        assert block.skipped in ("", *blocks.REASONS), f"{page}, line {block.line}"
        if block.language == "bash":
            for _, words in blocks.commands(block):
                session.parse(words)
        elif block.language == "python":
            ast.parse(block.text)


def test_the_front_page_does_what_it_says(tmp_path, monkeypatch, capsys):
    """In the process of the tests, which has imported what a reader's would."""
    monkeypatch.chdir(tmp_path)
    for name in ("DATA_CACHE", "WEIGHTS"):
        monkeypatch.setenv(f"IMGCLS_{name}", str(tmp_path / name))
    session.prepare(tmp_path)
    session.shrink(monkeypatch.setattr)
    session.run("README.md")
    printed = shares(capsys.readouterr().out)
    shown = [shares(block.text) for block in blocks.read("README.md") if block.language == "text"]
    assert len(shown) == 1 and shown[0] in printed


def shares(text: str) -> str:
    """Without the digits of percentages, which differ in the last one on other processors."""
    return re.sub(r"[\d.]+%", "%", text)


@pytest.mark.nightly
@pytest.mark.parametrize("page", [page for page in RUN if page != "README.md"])
def test_a_page_does_what_it_says(page, tmp_path, tmp_path_factory):
    done = session.start(page, tmp_path, tmp_path_factory.getbasetemp() / "compiled")
    assert done.returncode == 0, done.stdout[-3000:]


def test_the_lines_of_the_front_page_that_install_and_test_are_whole():
    lines = [line for block in blocks.read("README.md") for line in block.text.splitlines()
             if line.startswith("python3 -m venv .venv && ")]
    assert [("imgcls train" in line, "pytest" in line) for line in lines] == [
        (True, False), (False, True)]
