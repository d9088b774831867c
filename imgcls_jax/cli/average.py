"""Averages checkpoints, and estimates BatchNorm anew: imgcls average W [W ...] --last=5 --workdir=A

The mean of the weights that would be evaluated, over the newest --last checkpoints of each workdir
(stochastic weight averaging, arXiv 1803.05407), or over several runs from the same start (a
uniform soup, arXiv 2203.05482). The statistics of BatchNorm are not those of the averaged weights:
they are estimated anew over --batch_norm examples of training, as the config feeds them;
--config.KEY=VALUE overrides, as for where the data lies. A is a workdir that eval, predict, export
and config.init take.
"""

from pathlib import Path

from absl import flags

from imgcls_jax import config, durations
from imgcls_jax.cli import _flags, _workdir
from imgcls_jax.errors import CheckpointError, ConfigError

FLAGS = _flags.verb()
flags.DEFINE_string("workdir", None, "Folder to make.", flag_values=FLAGS)
flags.DEFINE_integer("last", 1, "How many of the newest checkpoints of each workdir.",
                     lower_bound=1, flag_values=FLAGS)
flags.DEFINE_string("step", None, "In place of --last: a step, or 'best'.", flag_values=FLAGS)
flags.DEFINE_integer("batch_norm", 10_000, "Examples to estimate the statistics of BatchNorm over; "
                     "0: their mean over the checkpoints is kept.", lower_bound=0,
                     flag_values=FLAGS)


def main(words, overrides):
    if not words or not FLAGS.workdir:
        raise ConfigError("no workdir is named", where="command line",
                          fix="imgcls average W [W ...] --workdir=A")
    made = Path(FLAGS.workdir)
    _workdir.check_new(made)
    from imgcls_jax.checkpoint import reading

    chosen = [(folder, step) for folder in map(Path, words) for step in _steps(folder)]
    mean, item, averaged = _mean(chosen)
    changed = config.override(config.plain(item["config"]), overrides)
    step = max(reading.choose(folder / "checkpoints", step) for folder, step in chosen)
    examples = 0
    if "batch_stats" in mean and FLAGS.batch_norm:
        mean, examples = _estimated(changed, item, mean, FLAGS.batch_norm)
    names = ", ".join(f"{folder}/{step}" for folder, step in chosen)
    _workdir.make(made, mean, {**item, "config": changed, "stopped": f"the mean of {names}"},
                  step=step, averaged=averaged)
    print(f"the mean of {len(chosen)} checkpoints ({names})"
          + (f", BatchNorm over {examples:,} examples" if examples else "") + f", in {made}")


def _steps(folder: Path) -> list:
    from imgcls_jax.checkpoint import digests, reading

    directory = folder / "checkpoints"
    if FLAGS.step:
        return [reading.choose(directory, FLAGS.step)]
    found = digests.steps(directory)[:FLAGS.last]
    if len(found) < FLAGS.last:
        raise CheckpointError(f"there are {len(found)} checkpoints, not {FLAGS.last}",
                              where=str(directory), fix="lower --last; training keeps more with "
                              "config.checkpoint.keep")
    return sorted(found)


def _mean(chosen: list) -> tuple[dict, dict, bool]:
    """(variables as numpy, the config item of the last, whether it has a moving average)."""
    import jax
    import numpy as np

    from imgcls_jax import tree
    from imgcls_jax.checkpoint import reading
    from imgcls_jax.types import TrainState

    total, shapes, item = None, None, None
    for folder, step in chosen:
        weights, found, _ = reading.restore_weights(folder / "checkpoints", step)
        variables = TrainState(step=step, opt_state=None, **weights).eval_variables()
        if total is None:
            # A sum of many in bf16 or f32 would lose the digits that averaging is for.
            total = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float64), variables)
            shapes = variables
        difference = tree.diff(shapes, variables)
        if difference or (item and item["classes"] != found["classes"]):
            raise CheckpointError(f"it is of another model than {chosen[0][0]}:\n{difference}"
                                  if difference else f"its classes are not those of "
                                  f"{chosen[0][0]}", where=f"{folder}, step {step}",
                                  fix="average checkpoints of one model and one set of classes")
        total = jax.tree.map(np.add, total, variables)
        item, averaged = found, weights["ema"] is not None
    mean = jax.tree.map(lambda s, leaf: (s / len(chosen)).astype(leaf.dtype), total, shapes)
    return mean, item, averaged


def _estimated(changed: dict, item: dict, variables: dict, examples: int) -> tuple[dict, int]:
    """(the variables with the statistics of BatchNorm over that many examples, how many it were)"""
    import jax
    import numpy as np

    from imgcls_jax import tree
    from imgcls_jax.assembly import build
    from imgcls_jax.parallel import transfer
    from imgcls_jax.training import programs

    last = durations.at_phase(changed, durations.phases(changed) - 1)  # as it is evaluated
    run = build({**last, "step": {"name": "batch_norm"}, "total": {"examples": examples},
                 "optimizer": {"name": "sgd"}, "schedule": {"name": "constant", "base": 0.0},
                 "weight_decay": None, "clip": None, "ema": None, "freeze": (), "init": None,
                 "evals": {}, "stop": None,
                 "checkpoint": {**last["checkpoint"], "best": None}})
    if run.source.classes != tuple(item["classes"]):
        raise ConfigError("the classes of the data are not those the model was trained with",
                          where=f"config.data ({run.source.name})",
                          fix="name the data it was trained on, or --batch_norm=0")
    step, _ = programs.compile_step(run).result()
    given = {"params": variables["params"],
             "model_state": {k: v for k, v in variables.items() if k != "params"}}
    difference = tree.diff({k: getattr(run.abstract_state, k) for k in given}, given)
    if difference:
        raise CheckpointError(f"the config makes another model:\n{difference}",
                              where="config.model", fix="leave the model and its precision as they "
                              "are")
    places = jax.tree.map(lambda leaf: leaf.sharding, run.abstract_state)
    state = run.init().replace(**{k: transfer.place(given[k], getattr(places, k)) for k in given})
    batches = transfer.prefetch(run.batches(0), run.put)
    for _ in range(run.total_steps):
        state, _ = step(state, next(batches)[1])
    statistics = jax.tree.map(np.asarray, state.model_state)
    return {**variables, **statistics}, run.total_steps * run.batch_size
