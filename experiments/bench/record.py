"""The records of this folder: one JSON file per question, and README.md, which shows them all.

python -m experiments.bench.record       writes experiments/bench/README.md from the records

A record says what was asked, on which machine, with which versions and when, and has flat rows of
figures. A run of a script replaces the rows of the cases it measured and leaves the others.
"""

import ast
import json
import os
import platform
import time
from pathlib import Path

from imgcls_jax import environment

HERE = Path(__file__).parent
KEY = "case"
HEAD = """# Benchmarks

Each script answers one question and writes one record, a JSON file of the same name. Run it from
the checkout; its docstring says what is measured and how, and which options it takes. A run
replaces the rows of the cases that it measured. `python -m experiments.bench.record` then writes
this page."""


def save(question: str, title: str, rows: list[dict], **facts):
    """Merges rows, each with a "case" and figures, into the record of a question.

    facts: what else a reader must know of the run, such as "other": {"torch": "2.13.0"}.
    """
    path = HERE / f"{question}.json"
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    made = {"date": time.strftime("%Y-%m-%d"), "commit": environment.commit(), "machine": machine(),
            "versions": {k: v for k, v in environment.versions().items()
                         if k in ("python", "jax", "jaxlib", "libtpu", "flax", "optax")}, **facts}
    new = {row[KEY]: {**row, "made": made} for row in rows}
    merged = [new.pop(row[KEY], row) for row in old] + list(new.values())
    path.write_text(json.dumps({"title": title, "rows": merged}, indent=1) + "\n")


def machine() -> str:
    """The processor, and how many cores of it this process may use."""
    names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo")
             if line.startswith("model name")] if os.path.exists("/proc/cpuinfo") else []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0] if names else platform.machine()}, {cores} cores"


def questions() -> str:
    """Markdown: the question of each script (the first line of its docstring), command, record."""
    lines = ["| question | command | record |", "|---|---|---|"]
    for path in sorted(HERE.glob("*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text()))
        if path.stem != Path(__file__).stem:
            lines.append(f"| {doc.splitlines()[0]} | `python -m experiments.bench.{path.stem}` | "
                         f"[{path.stem}.json]({path.stem}.json) |")
    return "\n".join(lines)


def table() -> str:
    """All questions, and all records as Markdown, a section per question."""
    parts = [HEAD, questions()]
    for path in sorted(HERE.glob("*.json")):
        record = json.loads(path.read_text())
        columns = list(dict.fromkeys(key for row in record["rows"] for key in row
                                     if not isinstance(row[key], dict | list)))
        lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
        lines += [" | ".join(_say(row.get(key)) for key in columns) for row in record["rows"]]
        made = sorted({_made(row["made"]) for row in record["rows"]})
        parts += [f"## {record['title']}", "\n".join(f"| {line} |" for line in lines),
                  "\n".join(f"- {line}" for line in made)]
    return "\n\n".join(parts) + "\n"


def _say(value) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _made(made: dict) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in {**made["versions"],
                                                 **made.get("other", {})}.items())
    return f"{made['date']}, {made['machine']}, {versions}, commit {(made['commit'] or '')[:12]}"


if __name__ == "__main__":
    (HERE / "README.md").write_text(table())
