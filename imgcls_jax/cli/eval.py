"""Evaluates a trained workdir: imgcls eval --workdir=W [--step=best] [--json]

imgcls eval --workdir=W --config.evals.test.metrics="({'name': 'f1'}, {'name': 'confusion'})"
imgcls eval --workdir=W --config.evals.classes="{'name': 'per_class'}"

The config is that of the checkpoint; --config.KEY=VALUE overrides a value. An evaluation that the
config does not have is added, with data of its own where it names any. Numbers are printed, arrays
such as a confusion matrix go to W/evaluations/NAME.npz.
"""

import json
import sys
import warnings
from pathlib import Path

from absl import flags

from imgcls_jax import config
from imgcls_jax.cli import _flags
from imgcls_jax.errors import ConfigError, printable

FLAGS = _flags.verb()
_flags.define_start(FLAGS)
flags.DEFINE_string("workdir", None, "Folder of the run.",
                    flag_values=FLAGS)
flags.DEFINE_string("step", "latest", "Which checkpoint: a step, 'latest' or 'best'.",
                    flag_values=FLAGS)
flags.DEFINE_bool("json", False, "Print JSON.",
                  flag_values=FLAGS)


def _here(saved: dict) -> dict:
    """The config with the splits.json of this workdir for one that has moved with it."""
    known, ours = saved["data"].get("known"), Path(FLAGS.workdir) / "splits.json"
    if known and not Path(known).exists() and ours.exists():
        return {**saved, "data": {**saved["data"], "known": str(ours)}}
    return saved


def main(words, overrides):
    if not FLAGS.workdir:
        raise ConfigError("--workdir is not given", where="command line", fix="--workdir=FOLDER")
    _flags.start(FLAGS)
    import jax

    from imgcls_jax.assembly import build
    from imgcls_jax.checkpoint import reading
    from imgcls_jax.data import listing
    from imgcls_jax.training import workdir
    from imgcls_jax.types import TrainState

    directory = Path(FLAGS.workdir) / "checkpoints"
    saved, step = reading.read_config(directory, FLAGS.step)
    run = build(config.override(_here(config.saved(saved["config"])), overrides))
    if tuple(saved["classes"]) != run.source.classes:
        raise ConfigError("the classes of the data are not those the model was trained with",
                          where=f"config.data ({run.source.name})",
                          fix="evaluate on data with the classes of labels.json")
    evaluated = [name for name in run.examples.splits if name != run.config["data"].get("train")]
    changes = listing.changes(saved.get("examples", {}), run.examples.read(*evaluated) if evaluated
                              else {}, Path(FLAGS.workdir) / "examples", run.source.classes)
    if changes:
        warnings.warn("the data has changed since the checkpoint: " + "; ".join(changes),
                      stacklevel=1)
    want = run.abstract_state
    weights, _, step = reading.restore_weights(directory, step, want)
    state = TrainState(step=step, opt_state=None, **weights)
    main = jax.process_index() == 0
    results = {"step": int(step), "model": run.spec.name, "eval": {}}
    for name, evaluation in run.evaluations.items():
        if main:
            print(f"evaluating {name}", file=sys.stderr, flush=True)
        results["eval"][name] = workdir.write_evaluation(
            Path(FLAGS.workdir), name, evaluation.run(state.eval_variables()), step=int(step),
            main=main)
    if main:
        if FLAGS.json:
            print(json.dumps(results))
        else:
            for name, values in results["eval"].items():
                shown = ", ".join(f"{k} {v:.4f}" for k, v in values.items())
                print(printable(f"step {results['step']}, {name}: {shown}"))
