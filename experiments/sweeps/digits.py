"""The claims of configs/digits.py: seeds 0 to 4 on fold 0, and seed 0 on folds 1 to 4, by variant.

python -m experiments.sweeps.digits [resnet|vit ...]    # writes experiments/sweeps/digits.json

Each run is a process of its own, as a newcomer starts it; its CPU seconds are those of the process,
imports and compiling included. Runs that the file holds already are left out.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OUT = Path(__file__).with_suffix(".json")
RUNS = [(seed, 0) for seed in range(5)] + [(0, fold) for fold in range(1, 5)]


def run(variant: str, seed: int, fold: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, "-m", "imgcls_jax", "train", f"--config=digits:{variant}",
                        f"--workdir={folder}/w", f"--config.seed={seed}",
                        f"--config.data.fold={fold}", "--quiet", f"--cache={folder}/cache"],
                       check=True)
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        record = json.loads(Path(f"{folder}/w/record.json").read_text())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"variant": variant, "seed": seed, "fold": fold, "step": record["result"]["step"],
            **record["result"]["eval"]["test"], "cpu_seconds": round(cpu, 1),
            "wall_seconds": round(wall, 1), "load": round(os.getloadavg()[0], 1),
            "config_digest": record["config_digest"], "commit": record["commit"],
            "versions": record["versions"], "cpus": record["cpus"]}


def summary(rows: list[dict], variant: str) -> dict:
    rows = [row for row in rows if row["variant"] == variant]
    seeds = [row["top1"] for row in rows if row["fold"] == 0]
    return {"fold0_mean": statistics.mean(seeds), "fold0_std": statistics.pstdev(seeds),
            "fold0_seeds": len(seeds), "worst_fold": min(row["top1"] for row in rows
                                                         if row["seed"] == 0),
            "most_cpu_seconds": max(row["cpu_seconds"] for row in rows)}


def main(variants):
    rows = json.loads(OUT.read_text())["runs"] if OUT.exists() else []
    for variant in variants:
        for seed, fold in RUNS:
            if any((row["variant"], row["seed"], row["fold"]) == (variant, seed, fold)
                   for row in rows):
                continue
            rows.append(run(variant, seed, fold))
            found = sorted({row["variant"] for row in rows})
            OUT.write_text(json.dumps({"summary": {v: summary(rows, v) for v in found},
                                       "runs": rows}, indent=1) + "\n")
            print({key: rows[-1][key] for key in ("variant", "seed", "fold", "top1",
                                                  "cpu_seconds", "wall_seconds")}, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["resnet", "vit"])
