"""Checks, shows and prepares a dataset: imgcls data check|show|prepare DATA [--flags]

imgcls data check photos/                                 lists every fault; exit code 3 if any
imgcls data check tfds --config.data.dataset=cifar10      a dataset by name, with its arguments
imgcls data show --config=finetune:data=photos            a picture of raw and augmented images
imgcls data prepare photos/ --out=records --short_side=288     writes record files

DATA is a folder, an archive, a manifest (.csv, .jsonl), record files, or the name of a dataset
(imgcls list datasets). A folder, archive or manifest is read as by imgcls train
--config=finetune:data=DATA. With --config, the data and the transforms are those of the config, and
DATA replaces its data. --config.KEY=VALUE overrides a value.
"""

import os
import shlex
from pathlib import Path

from absl import flags

from imgcls_jax import config, durations
from imgcls_jax.cli import _flags
from imgcls_jax.cli._data import keep_outside, named
from imgcls_jax.errors import ConfigError, DataError, EnvironmentFailure, printable

FLAGS = _flags.verb()
_flags.define_config(FLAGS)
flags.DEFINE_bool("json", False, "check: print JSON.", flag_values=FLAGS)
flags.DEFINE_bool("fast", False, "check: read only the headers of images, decode nothing.",
                  flag_values=FLAGS)
flags.DEFINE_bool("write_digests", False, "check: also write the digest of every file to "
                  "DATA/manifest.json; later checks then find every byte that has changed.",
                  flag_values=FLAGS)
flags.DEFINE_list("splits", None, "check, prepare: which splits; by default all.",
                  flag_values=FLAGS)
flags.DEFINE_string("split", None, "show: which split, such as 'val'; by default the one that is "
                    "trained on.", flag_values=FLAGS)
flags.DEFINE_string("out", None, "show: the PNG file, by default data.png. prepare: a new folder.",
                    flag_values=FLAGS)
flags.DEFINE_integer("rows", 6, "show: number of examples.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("columns", 5, "show: augmented images of each example.", lower_bound=1,
                     flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "show: decides which examples, and how they are augmented. "
                     "prepare: decides the order of the examples.", lower_bound=0,
                     flag_values=FLAGS)
flags.DEFINE_integer("short_side", None, "prepare: shrink larger images until their shorter side "
                     "has this many pixels.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("quality", 95, "prepare: JPEG quality of shrunk images.",
                     lower_bound=1, upper_bound=100, flag_values=FLAGS)
flags.DEFINE_integer("shards", None, "prepare: number of files of each split; by default as many "
                     "as --shard_mb asks for.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("shard_mb", 128, "prepare: approximate size of a file in MB.", lower_bound=1,
                     flag_values=FLAGS)
flags.DEFINE_enum("format", "tfrecord", ("tfrecord", "array_record"), "prepare: format of the "
                  "files.", flag_values=FLAGS)
flags.DEFINE_enum("on_error", "fail", ("fail", "skip"), "prepare: what to do with an example that "
                  "cannot be read; skipped ones are listed in OUT/bad_samples.jsonl.",
                  flag_values=FLAGS)
flags.DEFINE_integer("workers", None, "check, prepare: number of threads; by default one per core.",
                     lower_bound=1, flag_values=FLAGS)


def main(words, overrides):
    actions = {"check": _check, "prepare": _prepare, "show": _show}
    action, *rest = words or [""]
    if action not in actions:
        raise ConfigError(f"there is no action {action!r}" if action else "no action is named",
                          where="command line", fix=f"imgcls data {'|'.join(actions)} DATA")
    if len(rest) > 1:
        raise ConfigError(f"unexpected argument {rest[1]!r}", where="command line",
                          fix=f"imgcls data {action} takes one folder, file or name")
    chosen = _chosen(rest[0] if rest else None, overrides)
    from imgcls_jax.data.decoding.tensorflow import tensorflow

    tensorflow()  # before a dataset imports it without our settings
    return actions[action](chosen)


def _chosen(word: str | None, overrides) -> dict:
    """The config that the command line means: its data, transforms and device transforms count."""
    if not (word or FLAGS.config):
        raise ConfigError("no data is named", where="command line",
                          fix="name a folder, a file, a dataset (imgcls list datasets) or --config")
    if not word:
        return config.load(FLAGS.config, overrides).config
    base = FLAGS.config or ("finetune" if word == "digits" else "finetune:data=.")
    loaded = config.load(base).config
    data = {"train": loaded["data"].get("train", "train"), "eval": loaded["data"].get("eval"),
            **named(word)}
    if data["eval"] is None or (data["name"] != "folder" and not FLAGS.config):
        del data["eval"]
    return config.override({**loaded, "data": data}, overrides)


def _threads() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux: what this process may use
    return FLAGS.workers or (len(affinity(0)) if affinity else os.cpu_count())


def _check(chosen: dict) -> int:
    from imgcls_jax.assembly import inputs
    from imgcls_jax.data.curation import check, figures

    data = chosen["data"]
    evaluated = bool(FLAGS.config) or data["name"] == "folder"
    needed = {"train": data.get("train", "train"), "eval": data.get("eval", "validation")}
    found = check.check(lambda: inputs.source(data), name=data["name"], place=_place(data),
                        needed=needed if evaluated else {}, splits=FLAGS.splits,
                        decode=not FLAGS.fast, write_digests=FLAGS.write_digests,
                        threads=_threads())
    print(config.to_json(found) if FLAGS.json else figures.render(found))
    return 0 if found["ok"] else DataError.code


def _place(choice: dict) -> str:
    """The path that a choice of a dataset names, if it names one."""
    path = next((value for key, value in choice.items()
                 if key in ("dir", "data_dir", "path", "file", "files")), "")
    return os.path.expanduser(path) if isinstance(path, str) else ""


def _prepare(chosen: dict):
    if not FLAGS.out:
        raise ConfigError("--out is not given", where="command line",
                          fix="name a new folder: --out=FOLDER")
    from imgcls_jax.assembly import inputs
    from imgcls_jax.data.curation import examples, prepare

    out = Path(FLAGS.out).expanduser()
    keep_outside(chosen, out, "--out")
    made = inputs.source(chosen["data"])
    plan = prepare.Plan(
        data={k: v for k, v in config.located(chosen)["data"].items()
              if k not in ("train", "eval", "parts")},
        splits=examples.splits(made, FLAGS.splits), short_side=FLAGS.short_side,
        quality=FLAGS.quality, shards=FLAGS.shards, shard_mb=FLAGS.shard_mb, format=FLAGS.format,
        on_error=FLAGS.on_error, seed=FLAGS.seed)
    listed = prepare.prepare(made, out, plan, _threads())
    for name, split in listed["splits"].items():
        size = sum(file["bytes"] for file in split["files"])
        print(f"{printable(name):10} {split['count']:,} examples in {len(split['files']):,} files, "
              f"{size / 1e6:,.1f} MB")
    held_out = next((f" --config.data.eval={name}" for name in ("val", "validation", "test")
                     if name in listed["splits"]), None)
    parts = " --config.data.train='train[:90%]' --config.data.eval='train[90%:]'"
    place = shlex.quote(FLAGS.out)
    print(f"train with it: imgcls train --config=finetune:data={place}"
          f"{parts if held_out is None else ''}\n"
          f"with another config: --config.data.name=prepared --config.data.dir={place}"
          f"{held_out or parts}")


def _show(chosen: dict):
    out = Path(FLAGS.out or "data.png").expanduser()
    keep_outside(chosen, out, "--out")
    shown = picture(chosen, split=FLAGS.split, rows=FLAGS.rows, columns=FLAGS.columns,
                    seed=FLAGS.seed)
    try:
        shown.save(out, "PNG")
    except OSError as error:
        raise EnvironmentFailure(f"the picture cannot be written: {error.strerror}",
                                 where=str(out), fix="choose another --out") from error
    print(out)


def picture(chosen: dict, *, split: str | None = None, rows: int = 6, columns: int = 5,
            seed: int = 0):
    """The picture of a config's data and transforms, as of show.show; of several phases the last,
    whose augmentation is the strongest where it grows."""
    from imgcls_jax.assembly import inputs, preview
    from imgcls_jax.data.curation import show
    from imgcls_jax.transforms import TRANSFORMS

    chosen = durations.at_phase(chosen, durations.phases(chosen) - 1)
    data = inputs.fed(chosen["data"], chosen["seed"])
    host, device = (", ".join(choice["name"] for choice in chosen[key]) or "nothing"
                    for key in ("transforms", "device_transforms"))
    return show.show(
        data.source, split or data.options.train,
        inputs.chain(chosen["transforms"], TRANSFORMS, "config.transforms"),
        preview.device_transforms(chosen, data.source, seed),
        trained_on=f"{host}; on the device: {device}", rows=rows, columns=columns, seed=seed)
