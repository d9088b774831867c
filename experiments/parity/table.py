"""Runs every recorded case and writes experiments/parity/table.md and table.json.

python experiments/parity/table.py [GLOB ...]      # those cases alone; the others' rows stay

A row is a reference model at one size on one version of JAX: the largest difference of our logits
in f32 from the reference's in f64, beside what is allowed (tests/pretrained/test_parity.py).
"""

import fnmatch
import json
import platform
import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.pretrained import parity

OUT = Path(__file__).with_name("table.json")
HEAD = """# Logits beside those of the references

Written by table.py. The largest difference of our logits in f32 from the reference's in f64, over
two images, with every tensor drawn by rule.py. Allowed is the larger of a thousandth of the logits'
deviation across images and ten times the reference's own error in f32; where the second is the
larger, the relative difference in f64 counts too.

| reference | model | parameters | px | Python, JAX | difference | allowed | in f64 |
|---|---|---:|---:|---|---:|---:|---:|"""
PYTHON = ".".join(platform.python_version_tuple()[:2])


def measure(case: str, size: int) -> dict:
    found = parity.compare(case, size)
    name, arguments = parity.ours(case)
    row = {"reference": str(parity.load(case)["source"]), "model": name, "arguments": arguments,
           "parameters": int(parity.load(case)["params"]), "size": size, "python": PYTHON,
           "jax": jax.__version__, **found}
    if 10 * found["reference_error"] > 1e-3 * found["across"]:
        row["relative_f64"] = parity.compare(case, size, "float64")["relative"]
    return row


def key(row: dict) -> tuple:
    return row["reference"], json.dumps(row["arguments"]), row["size"], row["python"]


def markdown(rows: list[dict]) -> str:
    lines = [HEAD]
    for row in rows:
        double = f"{row['relative_f64']:.1e}" if "relative_f64" in row else ""
        model = row["model"] + "".join(f", {k}={v}" for k, v in row["arguments"].items())
        lines.append(f"| {row['reference']} | {model} | {row['parameters']:,} | {row['size']} | "
                     f"{row['python']}, {row['jax']} | {row['error']:.1e} | {row['allowed']:.1e} | "
                     f"{double} |")
    return "\n".join(lines) + "\n"


def main(patterns: list[str]):
    rows = {key(row): row for row in json.loads(OUT.read_text())} if OUT.exists() else {}
    for case in sorted(parity.cases(), key=parity.cases().get):
        if patterns and not any(fnmatch.fnmatch(case, pattern) for pattern in patterns):
            continue
        for size in parity.sizes(case):
            row = measure(case, size)
            rows[key(row)] = row
            print(f"{case} {size}: {row['error']:.1e} of {row['allowed']:.1e}"
                  + (" MISSED" if row["error"] > row["allowed"] else ""), flush=True)
            found = sorted(rows.values(), key=key)
            OUT.write_text(json.dumps(found, indent=1) + "\n")
            OUT.with_suffix(".md").write_text(markdown(found))
        parity.load.cache_clear()
        jax.clear_caches()


if __name__ == "__main__":
    main(sys.argv[1:])
