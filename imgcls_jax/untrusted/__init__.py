"""Files that others made: opened only if they are files, and read within what their size allows."""

import contextlib
import errno
import json
import os
import stat
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from imgcls_jax.errors import Failure

KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
         stat.S_IFSOCK: "a socket"}
WHOLE = 1 << 30  # bytes of a file that is read at once
IMAGE = 1 << 29  # bytes of an encoded image: more than 100 million pixels of three bytes need
FLOOR, TIMES = 1 << 26, 8
DEPTH = 64  # levels of JSON


class Refused(Exception):
    """A file holds, or asks for, something that is not allowed."""


class Budget:
    """Bytes that reading a file may take: `floor`, and `times` its size.

    Whatever the file claims to hold, memory and time stay in proportion to its size.
    """

    def __init__(self, size: int, *, times: int = TIMES, floor: int = FLOOR):
        self._left = floor + times * size

    def take(self, count: int):
        """Called before `count` bytes are made. Raises Refused when too many are."""
        self._left -= count
        if self._left < 0:
            raise Refused("far more numbers than it has bytes")


def check(path: str | bytes | os.PathLike, most: int = WHOLE):
    """OSError unless it is a file of at most `most` bytes: a pipe would block, a device not end."""
    _checked(os.stat(path), path, most)


def opened(path: str | bytes | os.PathLike, most: int | None = None) -> BinaryIO:
    """A file, open for reading. OSError as of `check`, or as of `open`."""
    check(path, most or 1 << 62)
    # It may have been replaced since: a pipe without a writer must not block.
    file = open(path, "rb", opener=lambda name, flags: os.open(
        name, flags | getattr(os, "O_NONBLOCK", 0)))
    try:
        _checked(os.fstat(file.fileno()), path, most or 1 << 62)
    except OSError:
        file.close()
        raise
    return file


def read(path: str | bytes | os.PathLike, most: int = WHOLE) -> bytes:
    """The bytes of a file. OSError as of `opened`."""
    with opened(path, most) as file:
        return file.read(os.fstat(file.fileno()).st_size)


def _checked(status: os.stat_result, path, most: int):
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "no file")
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", path)
    if status.st_size > most:
        raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes, over the limit of {most:,}",
                      path)


def member(archive: zipfile.ZipFile, name: str, budget: Budget) -> bytes:
    """The bytes of a member of a zip archive, which are as many as its header says.

    Raises Refused where it is packed other than stored or deflated, or the budget is used up.
    """
    entry = archive.getinfo(name)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused(f"{name[:80]!r} in a rare form of compression")
    budget.take(entry.file_size)
    with archive.open(entry) as file:
        data = file.read(entry.file_size + 1)  # without a number all is unpacked, then cut off
    if len(data) != entry.file_size:
        raise EOFError(f"{name[:80]!r} has not the {entry.file_size:,} bytes that it declares")
    return data


def from_json(text: str | bytes) -> Any:
    """The value of a JSON text. ValueError for another text, and for over DEPTH levels."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"it has over {DEPTH} levels") from error
    level = [value]
    for _ in range(DEPTH):
        level = [inner for outer in level if isinstance(outer, dict | list)
                 for inner in (outer.values() if isinstance(outer, dict) else outer)
                 if isinstance(inner, dict | list)]
        if not level:
            return value
    raise ValueError(f"it has over {DEPTH} levels")


@contextlib.contextmanager
def explaining(failure: type[Failure], kind: str, path: str | os.PathLike, *, only: str,
               instead: str) -> Iterator[None]:
    """Turns what reading a damaged or hostile file raises, which may be anything, into a Failure.

    kind: what it should be, as in "file of torch.save"; only: what alone is read of such a file;
    instead: how to save it otherwise.
    """
    where = os.fsdecode(path)
    try:
        yield
    except Failure:
        raise
    except Refused as error:
        raise failure(f"the file holds {error}; {only}", where=where, fix=instead) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise failure(f"the file is not a whole {kind}: {reason}", where=where,
                      fix="download it again and compare its hash") from error
