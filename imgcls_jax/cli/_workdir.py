"""A workdir for weights that no run in it has trained.

It is written as NAME.partial and becomes NAME when it is complete, as what `imgcls data prepare`
writes: after a kill, the same line begins it again.
"""

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from imgcls_jax import config
from imgcls_jax.errors import ConfigError

UNFINISHED = "unfinished.json"  # in a folder that is ours to begin again


def check_new(workdir: Path):
    """ConfigError if the workdir holds something, or what it is written as first is not ours."""
    partial = _partial(workdir)
    for folder, ours in ((workdir, False), (partial, (partial / UNFINISHED).is_file())):
        if folder.exists() and not ours and not (folder.is_dir() and not any(folder.iterdir())):
            what = ("the workdir" if folder == workdir else
                    f"{partial.name}, in which the workdir is prepared,")
            raise ConfigError(f"{what} is not empty", where=str(folder),
                              fix="name a new --workdir, or remove that folder")


def _partial(workdir: Path) -> Path:
    place = workdir.resolve()
    return place.with_name(f"{place.name}.partial")


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
    item = {**item, "config": config.located(item["config"])}
    check_new(workdir)
    partial = _partial(workdir)
    try:
        partial.mkdir(parents=True, exist_ok=True)
        folders.write_json(partial / UNFINISHED, {"becomes": workdir.name})
        with folders.open_workdir(partial, main=True):
            if (partial / "checkpoints").exists():
                shutil.rmtree(partial / "checkpoints")
            with contextlib.closing(Checkpoints(partial / "checkpoints", keep=1)) as keeper:
                state = TrainState(jnp.asarray(step, jnp.int32), params, model_state, opt_state={},
                                   ema=ema)
                keeper.save(step, state, {**item, "history": []})
                keeper.wait()
            folders.write_json(partial / "config.json", item["config"])
            folders.write_json(partial / "labels.json", item["classes"])
        partial.rename(workdir.resolve())
        (workdir / UNFINISHED).unlink()
    except OSError as error:
        raise folders.failure(error, partial) from error
