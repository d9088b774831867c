"""A workdir for weights that no run in it has trained."""

from collections.abc import Mapping
from pathlib import Path

from imgcls_jax.errors import ConfigError


def check_new(workdir: Path):
    """ConfigError if the workdir has checkpoints."""
    if (workdir / "checkpoints").exists():
        raise ConfigError("the workdir already has checkpoints", where=str(workdir),
                          fix="name a new --workdir")


def make(workdir: Path, variables: Mapping, item: Mapping, *, step: int = 0,
         averaged: bool = False):
    """Makes a workdir with one checkpoint, which eval, predict, export and config.init can use.

    item: the checkpoint's `config` item, without the history. averaged: whether the config has a
    moving average; the variables are then saved as that too.
    """
    import jax.numpy as jnp

    from imgcls_jax.checkpoint.saving import Checkpoints
    from imgcls_jax.training import workdir as folders
    from imgcls_jax.types import TrainState

    params, model_state = variables["params"], dict(variables)
    del model_state["params"]
    ema = {"params": params, "model_state": model_state} if averaged else None
    lock = folders.open_workdir(workdir, main=True)
    keeper = Checkpoints(workdir / "checkpoints", keep=1)
    try:
        state = TrainState(jnp.asarray(step, jnp.int32), params, model_state, opt_state={}, ema=ema)
        keeper.save(step, state, {**item, "history": []})
        keeper.wait()
        folders.write_json(workdir / "config.json", item["config"])
        folders.write_json(workdir / "labels.json", item["classes"])
    finally:
        keeper.close()
        lock.release()
