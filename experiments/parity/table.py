"""Runs every recorded case and writes experiments/parity/{table,training}.{md,json}.

python -m experiments.parity.table [--training] [--missing] [GLOB ...]

GLOBs: those cases alone. --missing: those that have no row of this version of Python. All other
rows stay.

A row of the first is a reference at one size on one version of JAX: the largest difference of our
logits in f32 from its own in f64, beside what is allowed (tests/pretrained/test_parity.py).
A row of the second is one training step of a reference in f64 and the worst tensor's difference
(tests/pretrained/test_gradients.py).
"""

import fnmatch
import json
import platform
import sys
from pathlib import Path

import jax
import numpy as np

from experiments.parity import compare

OUT = Path(__file__).with_name("table.json")
HEAD = """# Logits beside those of the references

Written by table.py. The largest difference of our logits in f32 from the reference's in f64, over
two images, with every tensor drawn by rule.py. Allowed is the larger of a thousandth of the logits'
deviation across images and ten times the reference's own error in f32; where the second is the
larger, the relative difference in f64 counts too.

| reference | model | parameters | px | Python, JAX | difference | allowed | in f64 |
|---|---|---:|---:|---|---:|---:|---:|"""
TRAINING = OUT.with_name("training.json")
TRAINING_HEAD = """# One training step beside that of the references

Written by table.py --training. Loss, gradients and new running statistics of one step in train
mode, in f64, dropout and stochastic depth off: the worst tensor's relative difference in norm,
estimated from products with random signs (rule.py). Allowed is 1e-4.

| reference | model | px | batch | Python, JAX | loss | gradients | statistics |
|---|---|---:|---:|---|---:|---:|---:|"""
PYTHON = ".".join(platform.python_version_tuple()[:2])


def measure(case: str, size: int) -> dict:
    found = compare.compare(case, size)
    name, arguments = compare.ours(case)
    row = {"reference": str(compare.load(case)["source"]), "model": name, "arguments": arguments,
           "parameters": int(compare.load(case)["params"]), "size": size, "python": PYTHON,
           "jax": jax.__version__, **found}
    if 10 * found["reference_error"] > 1e-3 * found["across"]:
        row["relative_f64"] = compare.compare(case, size, "float64")["relative"]
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


def measure_training(case: str) -> dict:
    found = compare.compare_training(case)

    def worst(kind):
        return max((v for k, v in found.items() if k.startswith(kind)), default=None)

    with np.load(compare.TRAINING / f"{case}.npz") as file:
        size, batch = int(file["size"]), int(file["batch"])
    name, arguments = compare.ours(case)
    return {"reference": str(compare.load(case)["source"]), "model": name, "arguments": arguments,
            "size": size, "batch": batch, "python": PYTHON, "jax": jax.__version__,
            "loss": found["loss"], "gradients": worst("gradient"), "statistics": worst("statistic")}


def training_markdown(rows: list[dict]) -> str:
    lines = [TRAINING_HEAD]
    for row in rows:
        figures = " | ".join("" if row[k] is None else f"{row[k]:.1e}"
                             for k in ("loss", "gradients", "statistics"))
        lines.append(f"| {row['reference']} | {row['model']} | {row['size']} | {row['batch']} | "
                     f"{row['python']}, {row['jax']} | {figures} |")
    return "\n".join(lines) + "\n"


def load(path: Path) -> dict[tuple, dict]:
    return {key(row): row for row in json.loads(path.read_text())} if path.exists() else {}


def write(path: Path, rows: dict[tuple, dict], markdown):
    found = sorted(rows.values(), key=key)
    path.write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(found))


def main(patterns: list[str]):
    training, missing = "--training" in patterns, "--missing" in patterns
    patterns = [word for word in patterns if not word.startswith("--")]
    path, form = (TRAINING, training_markdown) if training else (OUT, markdown)
    for case in compare.cases():
        if patterns and not any(fnmatch.fnmatch(case, pattern) for pattern in patterns):
            continue
        known = {(row["reference"], row["python"], json.dumps(row["arguments"]))
                 for row in load(path).values()}
        if missing and (str(compare.load(case)["source"]), PYTHON,
                        json.dumps(compare.ours(case)[1])) in known:
            continue
        if training:
            if not (compare.TRAINING / f"{case}.npz").exists():
                continue
            found = [measure_training(case)]
            print(f"{case}: {found[0]['gradients']:.1e}", flush=True)
        else:
            found = []
            for size in compare.cases()[case].sizes:
                found.append(row := measure(case, size))
                print(f"{case} {size}: {row['error']:.1e} of {row['allowed']:.1e}"
                      + (" MISSED" if row["error"] > row["allowed"] else ""), flush=True)
        # Read again: another version of Python may have written meanwhile.
        write(path, load(path) | {key(row): row for row in found}, form)
        compare.load.cache_clear()
        jax.clear_caches()


if __name__ == "__main__":
    main(sys.argv[1:])
