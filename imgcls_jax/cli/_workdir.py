"""A workdir that holds weights without a training run behind them."""

from collections.abc import Mapping
from pathlib import Path

from imgcls_jax.errors import ConfigError


def check_new(workdir: Path):
    if (workdir / "checkpoints").exists():
        raise ConfigError("there are checkpoints in this workdir", where=str(workdir),
                          fix="name a new --workdir")


def make(workdir: Path, variables: Mapping, item: Mapping, *, step: int = 0,
         averaged: bool = False):
    """One checkpoint of variables, with which eval, predict, export and config.init can work.

    item: its `config` item, without the history. averaged: whether its config has a moving average,
    in which place they then are as well.
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
