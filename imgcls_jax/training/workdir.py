"""The folder of a run: opened by one job at a time; small files appear complete or not at all."""

import errno
import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import numpy as np

from imgcls_jax import config as configs
from imgcls_jax.errors import ConfigError, EnvironmentFailure, Failure

MOMENT = 0.5  # seconds that two jobs may need to see each other's file
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


def open_workdir(path: Path, *, main: bool, take_over: bool = False) -> "Lock | None":
    """Makes the folder and takes its lock, on process 0 only (`main`). EnvironmentFailure if it
    cannot be written, ConfigError if another job has it. take_over: takes it from that job."""
    if not main:
        return None
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".probe"
        probe.write_bytes(b"0" * 4096)
        locks = _has_locks(probe)
        probe.unlink(missing_ok=True)
        return Lock(path, locks=locks, take_over=take_over)
    except OSError as error:
        raise failure(error, path) from error


def _has_locks(probe: Path) -> bool:
    """Whether the file system has flock; some of Lustre and FUSE do not."""
    with probe.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
    return True


class Lock:
    """One job per workdir, whose file `lock` names the job that has it.

    Where the file system has locks, the kernel releases it with the process: a killed job leaves
    none. Elsewhere (`locks` false) the file itself is the lock: that of a killed job stays until
    another takes it over. A context manager, which releases it; an error that is no Failure is
    raised as that of `check`, if another job has caused it.
    """

    def __init__(self, workdir: Path, *, locks: bool = True, take_over: bool = False):
        self.workdir, self.path = workdir, workdir / "lock"
        self._file: TextIO | None = None
        self._holder = (f"{socket.gethostname()}, process {os.getpid()}, since "
                        f"{time.strftime('%Y-%m-%d %H:%M:%S')} ({secrets.token_hex(4)})\n")
        if take_over:
            self._replace()
        if locks:
            self._lock()
        else:
            self._create(take_over)

    def _lock(self):
        self._file = file = self.path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise self._refused("wait for it, stop it, or choose another --workdir") from None
        file.truncate(0)
        file.write(self._holder)
        file.flush()

    def _create(self, taken_over: bool):
        try:
            with self.path.open("x") as file:
                file.write(self._holder)
        except FileExistsError:
            if not taken_over and not self._read():
                time.sleep(MOMENT)  # another job may be about to write it
                if not self._read():  # left empty by one that had a lock of the kernel
                    self._replace()
        time.sleep(MOMENT if taken_over else 0)
        if self._read() != self._holder:
            raise self._refused("wait for it or stop it; if it no longer runs, which this file "
                                "system cannot tell, give --take_over")

    def _replace(self):
        temporary = self.path.with_name(f".lock.{os.getpid()}.tmp")
        temporary.write_text(self._holder)
        temporary.replace(self.path)

    def _read(self) -> str | None:
        """What the file holds; None without it."""
        try:
            return self.path.read_text(errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _refused(self, fix: str) -> ConfigError:
        return ConfigError(f"another job is running here: {(self._read() or '').strip()}",
                           where=str(self.workdir), fix=fix)

    def check(self):
        """Raises ConfigError if another job has taken the workdir, or removed its file `lock`."""
        try:
            found = self._read()
        except OSError:  # of the file system, and no sign of another job
            return
        if found != self._holder:
            what = (f"another job has taken this workdir: {found.strip()}" if found and
                    found.strip() else "another job may have taken this workdir: its file `lock` "
                    + ("is gone" if found is None else "is empty"))
            raise ConfigError(what, where=str(self.workdir),
                              fix="this job stops and saves nothing more; if no other is running, "
                                  "run the same line again to go on from the last checkpoint")

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        try:
            if isinstance(error, Exception) and not isinstance(error, Failure):
                self.check()
        finally:
            self.release()

    def release(self):
        ours = self._read() == self._holder
        if self._file:
            # The file is kept: if it were removed, two jobs could lock two files of the same name.
            if ours:
                self._file.truncate(0)
            self._file.close()
        elif ours:
            self.path.unlink()


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
