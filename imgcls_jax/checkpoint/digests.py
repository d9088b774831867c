"""Digests of a checkpoint step: written when the folder is complete, verified before it is used.

The digest file (manifest.json) holds the digest of every file and one of itself. Orbax's marker,
written after it, says that the step is committed; a folder with either of the two is a step.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from imgcls_jax import untrusted

MARKER = "commit_success.txt"  # Orbax's
MANIFEST = "manifest.json"
# Orbax writes the time into the last one after the digest file; we read nothing from it.
UNSIGNED = (MANIFEST, MARKER, "_CHECKPOINT_METADATA")
SAVING = ".saving"  # holds the step that is being saved, until its digest file is written
UNKNOWN = "no digest file"


def sign(folder: Path):
    """Writes the digest file, complete and flushed to disk."""
    digests = _digests(folder)
    temporary = folder / f".{MANIFEST}.tmp"
    with temporary.open("w") as file:
        json.dump({"sha256": digests, "own": _own_digest(digests)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MANIFEST)


def verify(folder: Path) -> str | None:
    """What is wrong with a step's folder: None if nothing, UNKNOWN without a digest file."""
    try:
        manifest = untrusted.from_json(untrusted.read(folder / MANIFEST))
        wanted = manifest["sha256"]
        if not isinstance(wanted, dict) or manifest["own"] != _own_digest(wanted):
            raise ValueError
    except FileNotFoundError:
        return UNKNOWN
    except (OSError, ValueError, KeyError, TypeError):
        return f"{MANIFEST} is damaged"
    found = _digests(folder)
    for name, digest in wanted.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != digest:
            return f"{name} is damaged"
    return None


def _digests(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in UNSIGNED:
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _own_digest(digests: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def number(folder: Path) -> int | None:
    """The step that a folder is named after."""
    name = folder.name
    return int(name) if name.isascii() and name.isdigit() and str(int(name)) == name else None


def steps(directory: Path) -> list[int]:
    """Steps whose saving was completed, even if damaged since, the newest first."""
    if not directory.is_dir():
        return []
    found = [number(folder) for folder in directory.iterdir()
             if (folder / MARKER).is_file() or (folder / MANIFEST).is_file()]
    return sorted((step for step in found if step is not None), reverse=True)


def unfinished(directory: Path) -> int | None:
    """The step that is being saved, or whose save was killed."""
    with contextlib.suppress(OSError, ValueError):
        return int((directory / SAVING).read_text())
    return None


def first_good(directory: Path, candidates: Iterable[int]) -> tuple[int | None, list[str]]:
    """(the first good step of the candidates, what is wrong with those before it).

    A step without a digest file is used only where no step can be verified.
    """
    problems: dict[int, str] = {}
    step: int | None = None
    for candidate in candidates:
        problem = verify(directory / str(candidate))
        if problem is None:
            step = candidate
            break
        problems[candidate] = problem
    else:
        step = next((other for other, problem in problems.items() if problem == UNKNOWN), None)
    complaints = [f"checkpoint {other} is not used: {problem}"
                  for other, problem in problems.items() if other != step]
    if step in problems:
        complaints.append(f"checkpoint {step} has no digest file and is used unverified: no other "
                          "checkpoint is verified")
    return step, complaints
