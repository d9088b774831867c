"""What the sweeps beside it share: arms are trained over seeds, and a table is written.

Each run is a process of its own on the cores that this one may use. A run whose row the file of
results holds is left out, so that a sweep goes on where it was stopped.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def sweep(script: str, arms: Callable, shown: dict[str, str], unshown: tuple[str, ...] = ()):
    """arms: (folder of the workdirs, seed) -> {arm: words after `imgcls train`}, in the order of
    training, for an arm may start from the workdir of an earlier one, FOLDER/ARM-SEED.

    shown: metric -> its heading in the table; a share is shown in percent where the heading has a
    "%". unshown: arms that others start from.
    """
    out = Path(script).with_suffix(".json")
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", default="runs/sweeps", help="folder of the workdirs")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--arms", default="", help="which, by default all")
    arguments = parser.parse_args()
    folder = Path(arguments.runs).resolve() / out.stem
    rows = json.loads(out.read_text()) if out.exists() else []
    for seed in map(int, arguments.seeds.split(",")):
        for arm, words in arms(folder, seed).items():
            if arguments.arms and arm not in arguments.arms.split(","):
                continue
            workdir = folder / f"{arm}-{seed}"
            done = any((row["arm"], row["seed"]) == (arm, seed) for row in rows)
            if done and (arm not in unshown or workdir.exists()):
                continue
            rows = [row for row in rows if (row["arm"], row["seed"]) != (arm, seed)]
            rows.append({"arm": arm, "seed": seed, **train(workdir, seed, words)})
            out.write_text(json.dumps(rows, indent=1) + "\n")
            out.with_suffix(".md").write_text(table(script, rows, shown, unshown))
            print({key: rows[-1].get(key) for key in ("arm", "seed", *shown)}, flush=True)


def train(workdir: Path, seed: int, words: list[str]) -> dict:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "imgcls_jax", "train", f"--workdir={workdir}",
                    f"--config.seed={seed}", "--quiet", *words], check=True)
    record = json.loads((workdir / "record.json").read_text())
    values = dict(record["result"]["eval"])
    main = values.pop("val" if "val" in values else "test")
    named = {**main, **{f"{name}/{key}": value for name, found in values.items()
                        for key, value in found.items()}}
    return {**named, "step": record["result"]["step"],
            "wall_seconds": round(time.perf_counter() - began, 1),
            "config_digest": record["config_digest"], "commit": record["commit"],
            "versions": record["versions"]}


def table(script: str, rows: list[dict], shown: dict[str, str], unshown: tuple[str, ...]) -> str:
    """Markdown: mean and standard deviation over the seeds of each arm."""
    found = [key for key in shown if any(key in row for row in rows)]
    title = sys.modules["__main__"].__doc__.splitlines()[0]
    lines = [f"# {title}", "", f"Written by {Path(script).name}: mean over seeds and standard "
             "deviation.", "", f"| arm | seeds | {' | '.join(shown[key] for key in found)} |",
             "|---|---:|" + "---:|" * len(found)]
    for arm in dict.fromkeys(row["arm"] for row in rows if row["arm"] not in unshown):
        own = [row for row in rows if row["arm"] == arm]
        cells = [spread([row[key] for row in own if key in row], "%" in shown[key])
                 for key in found]
        lines.append(f"| {arm} | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def spread(values: list[float], percent: bool) -> str:
    if not values:
        return ""
    scale, digits = (100, 1) if percent else (1, 3)
    mean = f"{scale * statistics.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}"
