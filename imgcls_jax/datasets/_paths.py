"""How paths are said to people, and where what was learned of a file once is kept."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from imgcls_jax.errors import EnvironmentFailure


def say(path: bytes) -> str:
    """Printable in any terminal and in JSON, whatever bytes the name consists of."""
    return path.decode("utf-8", "backslashreplace")


def cache() -> Path:
    """$IMGCLS_DATA_CACHE, else ~/.cache/imgcls_jax/data: all in it can be made again."""
    return Path(os.environ.get("IMGCLS_DATA_CACHE")
                or Path.home() / ".cache" / "imgcls_jax" / "data")


def learned(files: Iterable[str | bytes], key: Mapping[str, Any]) -> Path:
    """The folder for what was made of files, which may not exist yet.

    key: what it depends on beside their paths, sizes and times of change; JSON.
    """
    states = []
    for file in files:
        status = os.stat(file)
        states.append([os.fsdecode(os.path.abspath(file)), status.st_size, status.st_mtime_ns])
    text = json.dumps([states, key], sort_keys=True)
    return cache() / hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def learn(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, filled by make(an empty folder) where nobody has done so yet.

    It appears whole or not at all, whoever else makes it at the same time.
    """
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    except OSError as error:
        raise EnvironmentFailure(f"no folder can be made there: {error.strerror}",
                                 where=str(folder.parent),
                                 fix="set IMGCLS_DATA_CACHE to a folder that can be written"
                                 ) from error
    try:
        make(unfinished)
        with contextlib.suppress(OSError):  # another process was faster: theirs is the same
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder
