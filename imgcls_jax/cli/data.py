"""Looks at data, shows and prepares it: imgcls data check|show|prepare DIR|FILE|NAME [--flags]

imgcls data check photos/                                 every fault, by path; code 3 if any
imgcls data check tfds --config.data.dataset=cifar10      a dataset by name, with its arguments
imgcls data show --config=finetune:data=photos            raw and augmented images as a PNG
imgcls data prepare photos/ --out=records --short_side=288

A folder, archive or file is read as `imgcls train --config=finetune:data=...` does. With --config
the data and the transforms are the config's; DIR, FILE or NAME then takes the place of its data.
--config.KEY=VALUE overrides a value of it.
"""

import importlib
import os
import sys
import time
from pathlib import Path

from absl import flags

from imgcls_jax import config
from imgcls_jax.cli import _flags
from imgcls_jax.errors import ConfigError

FLAGS = _flags.verb()
_flags.define_config(FLAGS)
flags.DEFINE_bool("json", False, "check: print JSON.", flag_values=FLAGS)
flags.DEFINE_bool("fast", False, "check: read headers alone, decode nothing.", flag_values=FLAGS)
flags.DEFINE_bool("write_digests", False, "check: also write the digest of every file to "
                  "DIR/manifest.json; later checks then find every byte that has changed.",
                  flag_values=FLAGS)
flags.DEFINE_list("splits", None, "check, prepare: which; by default all.", flag_values=FLAGS)
flags.DEFINE_string("split", None, "show: which, such as 'val'; by default what is trained on.",
                    flag_values=FLAGS)
flags.DEFINE_string("out", None, "show: the PNG, by default data.png. prepare: a new folder.",
                    flag_values=FLAGS)
flags.DEFINE_integer("rows", 6, "show: examples.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("columns", 5, "show: augmented images of each.", lower_bound=1,
                     flag_values=FLAGS)
flags.DEFINE_integer("seed", 0, "show: which examples, and how they are augmented. prepare: the "
                     "order of the examples.", lower_bound=0, flag_values=FLAGS)
flags.DEFINE_integer("short_side", None, "prepare: shrink larger images until the shorter side "
                     "has so many pixels, by Pillow's bicubic filter.", lower_bound=1,
                     flag_values=FLAGS)
flags.DEFINE_integer("quality", 95, "prepare: of the JPEG that a shrunk image becomes.",
                     lower_bound=1, upper_bound=100, flag_values=FLAGS)
flags.DEFINE_integer("shards", None, "prepare: files of every split; by default as many as "
                     "--shard_mb asks for.", lower_bound=1, flag_values=FLAGS)
flags.DEFINE_integer("shard_mb", 128, "prepare: about the size of a file in MB.", lower_bound=1,
                     flag_values=FLAGS)
flags.DEFINE_enum("format", "tfrecord", ("tfrecord", "array_record"), "prepare: of the files.",
                  flag_values=FLAGS)
flags.DEFINE_enum("on_error", "fail", ("fail", "skip"), "prepare: what to do with an example that "
                  "cannot be read; those skipped are listed in OUT/bad_samples.jsonl.",
                  flag_values=FLAGS)
flags.DEFINE_integer("workers", None, "check, prepare: threads; by default one a core.",
                     lower_bound=1, flag_values=FLAGS)

ACTIONS = ("check", "prepare", "show")
PROGRESS = 10  # seconds between two lines of it


def main(words, overrides):
    action, *rest = words or [""]
    if action not in ACTIONS:
        raise ConfigError(f"data can do no {action!r}" if action else "what to do with data?",
                          where="command line", fix=f"imgcls data {'|'.join(ACTIONS)} DIR|NAME")
    if len(rest) > 1:
        raise ConfigError(f"unexpected argument {rest[1]!r}", where="command line",
                          fix=f"imgcls data {action} takes one folder, file or name")
    loaded = chosen(rest[0] if rest else None, overrides)
    from imgcls_jax.data.decoding.tensorflow import tensorflow

    tensorflow()  # before a dataset imports it without our settings
    return importlib.import_module(f"imgcls_jax.cli._data_{action}").main(loaded)


def chosen(word: str | None, overrides) -> dict:
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


def named(word: str) -> dict:
    """The choice of a dataset that a word of the command line means: its name, or a path."""
    from imgcls_jax.datasets import DATASETS

    if any(sign in word for sign in "*?[") or "tfrecord" in Path(word).name:
        return {"name": "tfrecord", "files": os.path.expanduser(word)}
    found = config.data_at(word)
    if found is None:
        DATASETS.get(word, "command line")
        return {"name": word}
    return {key: os.path.expanduser(value) for key, value in found.items()
            if key not in ("train", "eval")}


def source(loaded: dict):
    """The dataset of a config, all of it: what config.data says of any dataset is left out."""
    from imgcls_jax.data.feed import OPTIONS
    from imgcls_jax.datasets import DATASETS

    choice = {k: v for k, v in loaded["data"].items() if k not in OPTIONS}
    return DATASETS.bind(choice, "config.data")()


def place(choice: dict) -> str:
    """The path that a choice of a dataset names, if it names one."""
    path = next((value for key, value in choice.items()
                 if key in ("dir", "data_dir", "path", "file", "files")), "")
    return os.path.expanduser(path) if isinstance(path, str) else ""


def splits(made, wanted: list[str] | None) -> list[str]:
    """The splits that are wanted, by default all, train first. Raises ConfigError."""
    for name in wanted or ():
        if name not in made.sizes:
            raise ConfigError(f"{made.name} has no split {name!r}", where="--splits",
                              fix=f"use one of {sorted(made.sizes)}")
    order = list(made.sizes)
    return sorted(wanted or order, key=lambda name: (name != "train", order.index(name)))


def threads() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux: what this process may use
    return FLAGS.workers or (len(affinity(0)) if affinity else os.cpu_count())


def printable(text: str) -> str:
    """The name on one line of any terminal: control characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Progress:
    """Lines on the standard error, for what takes longer than a person waits in silence."""

    def __init__(self, name: str, total: int):
        self._name, self._total, self._done = name, total, 0
        self._began = self._told = time.monotonic()

    def add(self, count: int):
        self._done += count
        now = time.monotonic()
        if now - self._told > PROGRESS:
            self._told = now
            left = (now - self._began) * (self._total - self._done) / self._done
            print(f"{self._name}: {self._done:,} of {self._total:,}, {left / 60:.0f} min left",
                  file=sys.stderr, flush=True)
