"""Averages the weights of checkpoints: imgcls average W [W ...] --last=5 --workdir=A

Takes the weights that would be evaluated, and their mean over the newest --last checkpoints of each
workdir W (stochastic weight averaging, arXiv 1803.05407), or over several runs from the same start
(a uniform soup, arXiv 2203.05482). BatchNorm's statistics do not fit the averaged weights, so they
are re-estimated on --batch_norm training examples, fed as the config says. --config.KEY=VALUE
overrides a value of it, for example where the data is. The new workdir A works with eval, predict,
export and config.init.
"""

from pathlib import Path

from absl import flags

from imgcls_jax import config, durations
from imgcls_jax.cli import _data, _flags, _workdir
from imgcls_jax.errors import CheckpointError, ConfigError

FLAGS = _flags.verb()
flags.DEFINE_string("workdir", None, "The new workdir.", flag_values=FLAGS)
flags.DEFINE_integer("last", 1, "Number of checkpoints of each workdir, the newest.",
                     lower_bound=1, flag_values=FLAGS)
flags.DEFINE_string("step", None, "Which checkpoint, instead of the --last ones: a step, or "
                    "'best'.", flag_values=FLAGS)
flags.DEFINE_integer("batch_norm", 10_000, "Examples on which BatchNorm's statistics are "
                     "re-estimated; 0: take their mean over the checkpoints.", lower_bound=0,
                     flag_values=FLAGS)


def main(words, overrides):
    if not words or not FLAGS.workdir:
        raise ConfigError("no workdir is named", where="command line",
                          fix="imgcls average W [W ...] --workdir=A")
    made = Path(FLAGS.workdir)
    _workdir.check_new(made)
    from imgcls_jax.checkpoint import reading
    from imgcls_jax.training import averaging

    chosen = [(folder, step) for folder in map(Path, words) for step in _steps(folder)]
    mean, item, averaged = averaging.mean(chosen)
    changed = config.override(config.plain(item["config"]), overrides)
    _data.keep_outside(changed, made, "--workdir")
    step = max(reading.choose(folder / "checkpoints", step) for folder, step in chosen)
    examples = 0
    if "batch_stats" in mean and FLAGS.batch_norm:
        mean, examples = _estimated(changed, tuple(item["classes"]), mean,
                                    FLAGS.batch_norm)
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
        raise CheckpointError(f"the workdir has {len(found)} checkpoints, but --last={FLAGS.last}",
                              where=str(directory), fix="lower --last; config.checkpoint.keep "
                              "decides how many training keeps")
    return sorted(found)


def _estimated(changed: dict, classes: tuple, variables: dict, examples: int) -> tuple[dict, int]:
    """(the variables with BatchNorm's statistics over at least so many examples, how many)"""
    from imgcls_jax.assembly import build
    from imgcls_jax.training import averaging

    last = durations.at_phase(changed, durations.phases(changed) - 1)  # as it is evaluated
    run = build({**last, "step": {"name": "batch_norm"}, "total": {"examples": examples},
                 "optimizer": {"name": "sgd"}, "schedule": {"name": "constant", "base": 0.0},
                 "weight_decay": None, "clip": None, "ema": None, "freeze": (), "init": None,
                 "evals": {}, "stop": None,
                 "checkpoint": {**last["checkpoint"], "best": None}})
    if run.source.classes != classes:
        raise ConfigError("the classes of the data are not those the model was trained with",
                          where=f"config.data ({run.source.name})",
                          fix="name the data it was trained on, or --batch_norm=0")
    return averaging.estimated(run, variables), run.total_steps * run.batch_size
