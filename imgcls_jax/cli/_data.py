"""What a word of the command line means as data, and what may be written near it."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from imgcls_jax import config
from imgcls_jax.errors import ConfigError


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


def keep_outside(chosen: Mapping, out: Path, flag: str):
    """ConfigError if `out` is where a folder of images of the config would be searched for images:
    the next command would take our own files for classes.

    Next to the folders of splits, as DIR/runs beside DIR/train, is no such place.
    """
    from imgcls_jax.datasets.folder import SPLITS

    others = (choice.get("data") for choice in chosen["evals"].values() if choice)
    for data in filter(None, (chosen["data"], *others)):
        if data.get("name") != "folder" or not isinstance(data.get("dir"), str):
            continue
        root, place = Path(data["dir"]).expanduser().resolve(), out.expanduser().resolve()
        if not root.is_dir():
            continue
        try:
            splits = [folder.name for folder in root.iterdir()
                      if os.fsencode(folder.name.lower()) in SPLITS and folder.is_dir()
                      and any(below.is_dir() for below in folder.iterdir())]
        except OSError:  # reported when it is read
            continue
        linked = any(place.is_relative_to(target) for target in _linked(root, splits))
        inside = place.is_relative_to(root) and (
            place == root or not splits or place.relative_to(root).parts[0] in splits)
        if linked or inside:
            raise ConfigError(f"{flag} is within the folder of images", where=str(out),
                              fix=f"name a place outside of {root}"
                                  f"{' and of what its links lead to' * linked}: {flag}=...")


def _linked(root: Path, splits: list[str]) -> Iterator[Path]:
    """Where links to folders lead, of a split or a class: they are searched for images too."""
    for upper in os.scandir(root):
        if splits and upper.name not in splits:
            continue
        with contextlib.suppress(OSError):  # one that cannot be read, or a link to itself
            for entry in (upper, *os.scandir(upper)):
                if entry.is_symlink() and entry.is_dir():
                    yield Path(entry).resolve()
