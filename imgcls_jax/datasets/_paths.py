"""How paths are printed, and where facts that were read from files once are kept."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from imgcls_jax import untrusted
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import DataError, EnvironmentFailure


def say(path: bytes) -> str:
    """The path in a form that any terminal and JSON can print, whatever its bytes."""
    return path.decode("utf-8", "backslashreplace")


def composed(name: bytes) -> bytes:
    """In Unicode's form NFC: macOS writes "é" as two characters, others mostly as one."""
    try:
        return name if name.isascii() else unicodedata.normalize("NFC", name.decode()).encode()
    except UnicodeDecodeError:
        return name


def share(seed: int, path: bytes) -> float:
    """A number in [0, 1), a hash of both: what decides to which split a path belongs."""
    return int.from_bytes(hashlib.sha256(b"%d:%s" % (seed, path)).digest()[:8], "big") / 2**64


def readable(path: bytes) -> bytes:
    """The path of an image that a user has named, for tf.io.read_file, which would wait for a pipe
    and read a device without end. DataError for these and for over 512 MB."""
    local = path.removeprefix(b"file://")
    if b"://" not in local:
        try:
            untrusted.check(local, untrusted.IMAGE)
        except FileNotFoundError:  # TensorFlow says so
            pass
        except OSError as error:
            raise DataError(error.strerror or str(error), where=say(path)) from error
    return path


def cache() -> Path:
    """$IMGCLS_DATA_CACHE, else ~/.cache/imgcls_jax/data; it may be deleted at any time."""
    return Path(os.environ.get("IMGCLS_DATA_CACHE")
                or Path.home() / ".cache" / "imgcls_jax" / "data")


def version(file: str | bytes, place: Any = None) -> str:
    """What changes when the file does: its `state`, with a place in it.

    OSError if there is no such file. A path such as gs://... is looked up by TensorFlow.
    """
    if "://" in os.fsdecode(file):
        tf = tensorflow()
        try:
            status = tf.io.gfile.stat(os.fsdecode(file))
        except tf.errors.OpError as error:
            raise OSError(error.message) from error
        found = [os.fsdecode(file), status.length, status.mtime_nsec]
    else:
        found = state(file)
    return json.dumps([found, place])


def state(file: str | bytes, status: os.stat_result | None = None) -> list:
    """A file's path, size, and times of modification and of status. Renaming a file over another
    keeps the one time and changes the other; so does chmod, after which it is merely read again.

    status: of the open file, as its name may be that of another file by now.
    """
    status = status or os.stat(file)
    return [os.fsdecode(os.path.abspath(file)), status.st_size, status.st_mtime_ns,
            status.st_ctime_ns]


def unchanged(descriptor: int, path: str | bytes, status: os.stat_result, kind: str):
    """DataError unless an open file is as it was at `status`. Another file may have been given its
    name: that changes its time of status and the number of its names, and nothing that is read."""
    now = os.fstat(descriptor)
    if ((now.st_size, now.st_mtime_ns) != (status.st_size, status.st_mtime_ns)
            or (now.st_ctime_ns != status.st_ctime_ns and now.st_nlink == status.st_nlink)):
        raise changed(path, kind)


def changed(path: str | bytes, kind: str) -> DataError:
    return DataError(f"the {kind} was changed while it was being read",
                     where=say(os.fsencode(path)), fix="start the same line again")


def learned(files: Iterable[str | bytes], key: Mapping[str, Any]) -> Path:
    """The folder for what is derived from files; it may not exist yet.

    key: what it depends on besides the `state` of each; JSON.
    """
    text = json.dumps([list(map(state, files)), key], sort_keys=True)
    return cache() / hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def learn(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, filled by make(an empty folder) if that has not been done yet.

    It appears complete or not at all, even if several processes make it at the same time.
    """
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    except OSError as error:
        raise EnvironmentFailure(f"the cache folder cannot be created: {error.strerror}",
                                 where=str(folder.parent),
                                 fix="set IMGCLS_DATA_CACHE to a folder that can be written"
                                 ) from error
    try:
        make(unfinished)
        with contextlib.suppress(OSError):  # another process was faster: its result is the same
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder
