"""The files that describe a run: config and environment at its start, results at its end."""

import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import jax

from imgcls_jax import config as configs
from imgcls_jax import environment, tree
from imgcls_jax.data import listing
from imgcls_jax.training import workdir
from imgcls_jax.training.evaluations import best_row
from imgcls_jax.training.log import read_rows
from imgcls_jax.types import Run


def headline(run: Run, directory: Path, start: int, name: str) -> str:
    count = tree.count(run.abstract_state.params)
    devices = run.mesh.devices.size
    return (f"{name or run.spec.name}: {run.spec.name}, {count:,} parameters, {run.source.name}, "
            f"{run.total_steps} steps of {run.batch_size} on {devices} "
            f"{jax.devices()[0].device_kind} device{'s' * (devices > 1)}, in {directory}"
            + (f", going on from step {start}" if start else ""))


def describe(run: Run, directory: Path, before: Mapping[str, Mapping]):
    """before: what the checkpoint that the run goes on from knew of the examples. While it is the
    last one, splits.json stays as it was, which says where images were."""
    workdir.write_json(directory / "config.json", configs.located(run.config))
    workdir.write_json(directory / "env.json", environment.environment())
    workdir.write_json(directory / "labels.json", run.source.classes)
    if not before:
        write_splits(run, directory)
    try:
        listing.write(directory / "examples", run.examples.read(), keep=before)
    except OSError as error:
        raise workdir.failure(error, directory / "examples") from error


def write_splits(run: Run, directory: Path):
    """Which image is in which split, where that was drawn."""
    if run.source.files:
        workdir.write_json(directory / "splits.json", run.source.files)


def summarise(run: Run, history: list[dict], stopped: str | None, directory: Path) -> dict:
    """What results.json holds: the last evaluation, and the best where the config names one."""
    last = history[-1] if history else {"step": run.total_steps}
    evals: dict[str, dict] = {name: {} for name in run.evaluations}
    for key, value in last.items():
        if key != "step":
            name, metric = key.split("/", 1)
            evals[name][metric] = value
    results = {"step": last["step"], "model": run.spec.name, "eval": evals,
               "workdir": str(directory)}
    best = run.checkpoint.best
    if best and (top := best_row(history, best, run.checkpoint.best_mode)):
        results["best"] = {"step": top["step"], best: top[best]}
    return results | ({"stopped": stopped} if stopped else {})


def summary(results: Mapping) -> str:
    shown = "; ".join(f"{name}: " + ", ".join(f"{k} {v:.4f}" for k, v in values.items())
                      for name, values in results["eval"].items())
    reason = f" ({results['stopped']})" if "stopped" in results else ""
    return f"done at step {results['step']}{reason}. {shown}. {results['workdir']}/results.json"


def record(run: Run, directory: Path, name: str, results: Mapping) -> dict:
    """All that a reader needs to trust a result, or to make it again. Paths are as they were given:
    those of one machine say nothing on another."""
    path = directory / "metrics.jsonl"
    curve = [row for _, row in read_rows(path)] if path.exists() else []
    rates = [row["images_per_second"] for row in curve if "images_per_second" in row]
    return {"config_name": name, "claim": run.claim, "result": results, "config": run.config,
            "config_digest": configs.digest(run.config), "seed": run.seed,
            "finished": time.strftime("%Y-%m-%d"),
            "images_per_second": statistics.median(rates) if rates else None,
            **environment.environment(), "curve": curve}
