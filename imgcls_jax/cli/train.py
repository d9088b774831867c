"""Trains and evaluates a config: imgcls train --config=digits --workdir=W

imgcls train --config=digits --config.total.epochs=5 --config.schedule.base=0.05 --workdir=W
imgcls train --config=finetune:model=resnet18,data=photos --workdir=W

All that the run writes goes to W; results.json has the last evaluation. The same line again on an
existing workdir continues its run from the last checkpoint. imgcls list prints what a config can
name and with which arguments, imgcls check what a config builds. Exit code 75 means that the run
was stopped and its state is saved: run the same line again.
"""

import contextlib
import json
import re
import shlex
import sys
import threading
import time
from pathlib import Path

from absl import flags

from imgcls_jax import config
from imgcls_jax.cli import _flags
from imgcls_jax.cli._data import keep_outside
from imgcls_jax.errors import ConfigError

FLAGS = _flags.verb()
_flags.define_config(FLAGS)
_flags.define_start(FLAGS)
flags.DEFINE_string("workdir", None, "Folder for all that the run writes; by default "
                    "runs/DATE_CONFIG.", flag_values=FLAGS)
flags.DEFINE_bool("record", False, "Also copy the run's record.json to experiments/results/.",
                  flag_values=FLAGS)
flags.DEFINE_bool("quiet", False, "Print only errors.",
                  flag_values=FLAGS)
flags.DEFINE_bool("take_over", False, "Take the workdir from another job, which then stops: where "
                  "a killed job's lock is left on a file system without locks.", flag_values=FLAGS)


def main(words, overrides):
    run(_flags.load_config(FLAGS, words, overrides))


def run(loaded):
    """Trains a config.Loaded as the flags say."""
    _flags.start(FLAGS)
    # TensorFlow takes seconds to import: meanwhile the run is built and compiled.
    from imgcls_jax.data.decoding.tensorflow import tensorflow
    threading.Thread(target=_import, args=(tensorflow,), daemon=True).start()
    import jax

    from imgcls_jax.assembly import build
    from imgcls_jax.training.loop import train
    from imgcls_jax.training.workdir import failure, read_json, write_json

    workdir = _workdir(loaded.name, jax.process_count())
    keep_outside(loaded.config, workdir, "--workdir")
    chosen = _going_on(loaded.config, workdir / "config.json")
    built = build(chosen, claim=loaded.claim, features=workdir / "features")
    if not (FLAGS.workdir or FLAGS.quiet):  # after all that may be wrong with the config
        line = shlex.join(["imgcls", "train", *sys.argv[2:], f"--workdir={workdir}"])
        print(f"to resume after an interruption: {line}", flush=True)
    train(built, workdir, name=loaded.name, quiet=FLAGS.quiet,
          take_over=FLAGS.take_over)
    if FLAGS.record and jax.process_index() == 0:
        results = Path("experiments/results")
        try:
            results.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise failure(error, results) from error
        path = results / f"{_slug(loaded.name)}.json"
        write_json(path, read_json(workdir / "record.json"))
        if not FLAGS.quiet:
            print(f"recorded in {path}")


def _going_on(chosen: dict, earlier: Path) -> dict:
    """The config, with splits as they were drawn where an earlier version began the run."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # looked at by `train`
        if "parts" not in json.loads(earlier.read_bytes())["data"]:
            return config.as_before(chosen)
    return chosen


def _import(tensorflow):
    # ImportError is reported when it is needed. RuntimeError: the command ended before the import.
    with contextlib.suppress(ImportError, RuntimeError):
        tensorflow()


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.=]+", "_", name.removesuffix(".py")).strip("_")


def _workdir(name: str, processes: int) -> Path:
    if FLAGS.workdir:
        return Path(FLAGS.workdir)
    if processes > 1:
        raise ConfigError("--workdir is not given, which several processes need",
                          where="command line",
                          fix="--workdir=FOLDER, on a file system that all processes see")
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}_{_slug(name)}"


