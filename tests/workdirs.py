"""A workdir without a training run."""

from pathlib import Path

from imgcls_jax import environment
from imgcls_jax.checkpoint.saving import Checkpoints
from imgcls_jax.types import Run


def save_workdir(run: Run, folder: Path):
    """The first state of a run, as train would save it."""
    folder.mkdir(parents=True, exist_ok=True)
    keeper = Checkpoints(folder / "checkpoints", keep=1)
    keeper.save(0, run.init(), {
        "config": run.config, "classes": run.source.classes, "model": run.spec.name,
        "preprocessing": run.preprocessing, "versions": environment.versions(), "history": [],
        "stopped": None})
    keeper.wait()
    keeper.close()
