"""The folder of a run: opened by one job at a time; small files appear complete or not at all."""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from imgcls_jax import config as configs
from imgcls_jax.errors import ConfigError, EnvironmentFailure

FIXES = {
    errno.EROFS: "the file system is read-only: choose another --workdir",
    errno.EACCES: "you may not write there: choose another --workdir or change its permissions",
    errno.EPERM: "you may not write there: choose another --workdir or change its permissions",
    errno.ENOSPC: "the disk is full: free some space, then run the same line again",
    errno.EDQUOT: "your quota is used up: free some space, then run the same line again",
    errno.ENOTDIR: "there is a file of that name: choose another --workdir",
    errno.EEXIST: "there is a file of that name: choose another --workdir",
}


def failure(error: OSError, path) -> EnvironmentFailure:
    """An OSError on `path`, with how to fix it."""
    fix = FIXES.get(error.errno or 0, "choose another --workdir")
    return EnvironmentFailure(f"cannot write: {error.strerror or error}", where=str(path), fix=fix)


def open_workdir(path: Path, *, main: bool) -> "Lock | None":
    """Makes the folder and takes its lock, on process 0 only (`main`). EnvironmentFailure if it
    cannot be written, ConfigError if another job has it."""
    if not main:
        return None
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".probe"
        probe.write_bytes(b"0" * 4096)
        probe.unlink()
        return Lock(path)
    except OSError as error:
        raise failure(error, path) from error


class Lock:
    """One job per workdir. The kernel releases it with the process: a killed job leaves no lock."""

    def __init__(self, workdir: Path):
        self.path = workdir / "lock"
        self._file = self.path.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            raise ConfigError(f"another job is running here: {self._file.read().strip()}",
                              where=str(workdir),
                              fix="wait for it, stop it, or choose another --workdir") from error
        self._file.truncate(0)
        self._file.write(f"{socket.gethostname()}, process {os.getpid()}, since "
                         f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        self._file.flush()

    def release(self):
        # The file is kept: if it were removed, two jobs could lock two files of the same name.
        self._file.truncate(0)
        self._file.close()


def write_json(path: Path, values: Mapping | list | tuple):
    """Writes the file completely or not at all, even if killed. EnvironmentFailure if it cannot."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(configs.to_json(values) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise failure(error, path) from error


def write_evaluation(directory: Path, name: str, values: Mapping, *, step: int, main: bool) -> dict:
    """Returns the numbers of an evaluation's results; their arrays go to evaluations/NAME.npz.

    The file holds the arrays of the last time that this evaluation ran, and of which step.
    """
    arrays = {key: value for key, value in values.items() if isinstance(value, np.ndarray)}
    if arrays and main:
        path = directory / "evaluations" / f"{name}.npz"
        try:
            path.parent.mkdir(exist_ok=True)
            temporary = path.with_name(f"{name}.tmp.npz")
            np.savez_compressed(temporary, step=np.int64(step), **arrays)  # type: ignore[arg-type]
            temporary.replace(path)
        except OSError as error:
            raise failure(error, path) from error
    return {key: value for key, value in values.items() if key not in arrays}


def read_json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))
