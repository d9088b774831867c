"""The code blocks of the pages, and the commands in them."""

import dataclasses
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md",
         *sorted(path.relative_to(ROOT).as_posix() for folder in ("docs", "experiments")
                 for path in (ROOT / folder).rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOTE = re.compile(r"<!-- (not run|file): (.*) -->\n\Z")
VARIABLE = re.compile(r"([A-Z_]+)=(.*)")
REASONS = (
    "installs packages", "is a test", "needs the network", "needs ImageNet",
    "needs ImageNet and the network", "needs data to be downloaded", "needs several machines",
    "needs a GPU, torch and timm", "needs torch, torchvision and timm", "needs the extra tpu",
    "needs the extra bench", "takes hours")


@dataclasses.dataclass(frozen=True)
class Block:
    """line: of the page, where it begins. skipped: why a test cannot run it, or "". file: where a
    reader is told to save it, or ""."""
    page: str
    line: int
    language: str
    text: str
    skipped: str
    file: str


def read(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    found = []
    for match in BLOCK.finditer(text):
        note = NOTE.search(text[:match.start()])
        kind, what = note.groups() if note else ("", "")
        found.append(Block(page, text[:match.start()].count("\n") + 1, match[1], match[2],
                           what if kind == "not run" else "", what if kind == "file" else ""))
    return found


def commands(block: Block) -> list[tuple[dict[str, str], list[str]]]:
    """(variables set before it, words after `imgcls`) of every command; a block that is run holds
    no other command."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in line.split(" && "):
            words = shlex.split(part, comments=True)
            names = [i for i, word in enumerate(words) if word.rpartition("/")[2] == "imgcls"]
            if names:
                before = filter(None, (VARIABLE.match(word) for word in words[:names[0]]))
                found.append((dict(match.groups() for match in before), words[names[0] + 1:]))
            elif words and not block.skipped:
                raise AssertionError(f"{block.page}, line {block.line}: no test can run {line!r}")
    return found
