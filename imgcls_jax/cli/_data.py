"""What a word of the command line means as data."""

import os
from pathlib import Path

from imgcls_jax import config


def named(word: str) -> dict:
    """The choice of a dataset that a word means: the name of one, or a path; ConfigError if it is
    neither."""
    from imgcls_jax.datasets import DATASETS

    if any(sign in word for sign in "*?[") or "tfrecord" in Path(word).name:
        return {"name": "tfrecord", "files": os.path.expanduser(word)}
    found = config.data_at(word)
    if found is None:
        DATASETS.get(word, "command line")
        return {"name": word}
    return {key: os.path.expanduser(value) for key, value in found.items()
            if key not in ("train", "eval")}
