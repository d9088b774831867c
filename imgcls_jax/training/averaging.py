"""The mean of checkpoints, and BatchNorm's statistics of the averaged network."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from imgcls_jax import tree
from imgcls_jax.checkpoint import reading
from imgcls_jax.errors import CheckpointError
from imgcls_jax.parallel import transfer
from imgcls_jax.training import programs
from imgcls_jax.types import Run, TrainState


def mean(chosen: Sequence[tuple[Path, int]]) -> tuple[dict, dict, bool]:
    """(mean of the variables, as numpy; config item of the last; whether it has an average).

    chosen: (workdir, step) of each checkpoint; of each the weights that would be evaluated. Raises
    CheckpointError unless all are of one model and one set of classes.
    """
    total, shapes, averaged = None, None, False
    item: dict = {}
    for folder, step in chosen:
        weights, found, _ = reading.restore_weights(folder / "checkpoints", step)
        variables = TrainState(step=step, opt_state=None, **weights).eval_variables()
        if total is None:
            # In bf16 or f32 a sum of many would round away what averaging gains.
            total = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float64), variables)
            shapes = variables
        difference = tree.diff(shapes, variables)
        if difference or (item and item["classes"] != found["classes"]):
            first = chosen[0][0]
            raise CheckpointError(f"the checkpoint is of another model than {first}:\n{difference}"
                                  if difference else
                                  f"the checkpoint's classes are not those of {first}",
                                  where=f"{folder}, step {step}",
                                  fix="average checkpoints of one model and one set of classes")
        broken = [path for path, leaf in tree.flatten(variables).items()
                  if not np.isfinite(np.asarray(leaf, np.float64)).all()]
        if broken:
            raise CheckpointError(f"{len(broken)} arrays hold values that are not finite, the "
                                  f"first {broken[0]}", where=f"{folder}, step {step}",
                                  fix="leave this checkpoint out")
        total = jax.tree.map(np.add, total, variables)
        item, averaged = found, weights["ema"] is not None
    averages = jax.tree.map(lambda s, leaf: (s / len(chosen)).astype(leaf.dtype), total, shapes)
    return averages, item, averaged


def estimated(run: Run, variables: Mapping) -> dict:
    """The variables with BatchNorm's statistics over the steps of a run of the step `batch_norm`.

    Raises CheckpointError if the run is of another model.
    """
    step, _ = programs.compile_step(run).result()
    given = {"params": variables["params"],
             "model_state": {k: v for k, v in variables.items() if k != "params"}}
    difference = tree.diff({k: getattr(run.abstract_state, k) for k in given}, given)
    if difference:
        raise CheckpointError(f"the config gives another model than the checkpoint:\n"
                              f"{difference}", where="config.model",
                              fix="do not override the model or its precision")
    places = jax.tree.map(lambda leaf: leaf.sharding, run.abstract_state)
    state = dataclasses.replace(run.init(), **{
        name: transfer.place(value, getattr(places, name)) for name, value in given.items()})
    batches = transfer.prefetch(run.batches(0), run.put)
    for _ in range(run.total_steps):
        state, _ = step(state, next(batches)[1])
    statistics = jax.tree.map(np.asarray, state.model_state)
    return {**variables, **statistics}
