"""Which examples a split has. By that a run that goes on, or a dataset that is half written,
notices that its data has changed.

Names, labels and their order are compared, and the content of record files by its digest or size.
Sizes and times of images are not: times differ between copies of a dataset, and an image whose
content changed is read as it is.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
import urllib.parse
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from imgcls_jax.types import Lookup, Shards

SHOWN = 3  # names in a message


@dataclasses.dataclass(frozen=True)
class Listing:
    """size: examples. names: bytes of each example, or of each file of records. labels: of each
    example, a number of a class, or b"0|3" where it has several. None: not known without reading
    the examples."""

    size: int
    names: Sequence[bytes] | None = None
    labels: np.ndarray | Sequence[bytes] | None = None

    @functools.cached_property
    def digest(self) -> str:
        """32 hex digits, the same for the same examples in the same order."""
        found = hashlib.sha256(b"%d\0" % self.size)
        found.update(_joined(self.names or ()))
        found.update(b"\0labels\0")
        if self.labels is not None:
            found.update(self.labels.astype("<i4").tobytes()
                         if isinstance(self.labels, np.ndarray) else _joined(self.labels))
        return found.hexdigest()[:32]

    def facts(self) -> dict:
        """What a checkpoint keeps of it."""
        return {"size": self.size, "digest": self.digest}


@dataclasses.dataclass(frozen=True)
class Examples:
    """Those of a run. splits: that it uses, the training split first. of: split -> its Listing.
    on_change: "fail" where a run may not go on with others than it was trained with, else "accept".
    """

    splits: tuple[str, ...]
    of: Callable[[str], Listing]
    on_change: Literal["fail", "accept"] = "fail"

    def read(self, *splits: str) -> dict[str, Listing]:
        """The listings of these splits, by default of all."""
        return {name: self.of(name) for name in splits or self.splits}

    def facts(self, before: Mapping[str, Mapping]) -> dict[str, Mapping]:
        """What a checkpoint keeps of them, and of splits that only earlier ones used."""
        return {**before, **{name: found.facts() for name, found in self.read().items()}}


def listing(split: Lookup | Shards) -> Listing:
    """Of a split, without reading an example."""
    if isinstance(split, Shards):
        return Listing(split.size, [b"%s (%s), records %d to %d" % (
            os.fsencode(path.rpartition("/")[2]), _content(split, path), first, first + count)
            for path, first, count in split.files])
    if not split.listed:
        return Listing(split.size)
    names, labels = split.listed()
    if labels is not None and np.ndim(labels[:1]) == 2:  # one column per class
        labels = [b"|".join(b"%d" % number for number in np.flatnonzero(row)) for row in labels]
    elif labels is not None and not (len(labels) and isinstance(labels[0], bytes)):
        labels = np.asarray(labels, np.int32)
    return Listing(split.size, names, labels)


def _content(split: Shards, path: str) -> bytes:
    """What tells the content of a file of records: its digest, else its size."""
    if split.digests and split.digests.get(path):
        return split.digests[path][:16].encode()
    with contextlib.suppress(OSError):  # such as gs://
        return b"%d bytes" % os.path.getsize(path)
    return b"?"


# ---- what has changed ---------------------------------------------------------------------------


def changes(before: Mapping[str, Mapping], now: Mapping[str, Listing], folder: Path,
            classes: Sequence[str]) -> list[str]:
    """One line for each kind of difference, with the number of examples and the first names.

    before: `Listing.facts` by split; splits that are not in both are not compared. folder: where
    `write` put the listings of before, from which the names come.
    """
    changed = [name for name in now if name in before
               and before[name]["digest"] != now[name].digest]
    earlier = {name: found for name in before
               if (found := read(folder, name, before[name]["digest"]))}
    lines = []
    for name in changed:
        lines += (_differences(name, earlier[name], now[name], classes) if name in earlier else
                  [f"{name}: {_count(now[name].size)}, before {before[name]['size']:,}"
                   if now[name].size != before[name]["size"] else
                   f"{name}: as many examples as before, but others"])
    return lines + _crossings(changed, earlier, now)


def _differences(split: str, old: Listing, new: Listing, classes: Sequence[str]) -> list[str]:
    if old.names is None or new.names is None:
        return [f"{split}: {_count(new.size)}, before {old.size:,}"]
    a, b = _by_name(old), _by_name(new)
    lines = [f"{split}: {_count(len(names))} {what} ({_some(names)})" for what, names in (
        ("added", [name for name in b if name not in a]),
        ("removed", [name for name in a if name not in b])) if names]
    other = [name for name in b if name in a and a[name] != b[name]]
    if other:
        name = other[0]
        lines.append(f"{split}: {_count(len(other))} with another label ({_say(name)}: "
                     f"{_classes(a[name], classes)} -> {_classes(b[name], classes)})")
    return lines or [f"{split}: the same examples in another order, or another number of times"]


def _crossings(changed: Iterable[str], old: Mapping[str, Listing], new: Mapping[str, Listing]
               ) -> list[str]:
    """Examples that one split had and another has now: a model may have been trained on them."""
    lines = []
    for there in changed:
        for here in old:
            if here != there and there in old:
                moved = (set(old[here].names or ()) & set(new[there].names or ())
                         ) - set(old[there].names or ())
                if moved:
                    lines.append(f"{_count(len(moved))} of {here} moved to {there} "
                                 f"({_some(sorted(moved))})")
    return lines


def _by_name(found: Listing) -> dict[bytes, int | bytes | None]:
    labels = [None] * found.size if found.labels is None else (
        found.labels.tolist() if isinstance(found.labels, np.ndarray) else found.labels)
    return dict(zip(found.names or (), labels, strict=False))


def _classes(label, classes: Sequence[str]) -> str:
    numbers = [int(number) for number in label.split(b"|") if number] if isinstance(
        label, bytes) else [label]
    return " and ".join(classes[number] if number in range(len(classes)) else str(number)
                        for number in numbers) or "none"


def _count(number: int) -> str:
    return f"{number:,} example{'s' * (number != 1)}"


def _some(names: Sequence[bytes]) -> str:
    return ", ".join(map(_say, names[:SHOWN])) + ", ..." * (len(names) > SHOWN)


def _say(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


# ---- kept in a folder ---------------------------------------------------------------------------


def write(folder: Path, listings: Mapping[str, Listing], keep: Mapping[str, Mapping] | None = None):
    """One file per split, whole or not at all. OSError if it cannot.

    keep: `Listing.facts` by split of a checkpoint that still refers to them; others go.
    """
    folder.mkdir(exist_ok=True)
    kept = {_file(folder, name, facts["digest"]) for name, facts in (keep or {}).items()}
    kept |= {_file(folder, name, found.digest) for name, found in listings.items()}
    for path in set(folder.glob("*.npz")) - kept:
        path.unlink()
    for name, found in listings.items():
        path = _file(folder, name, found.digest)
        if path.exists():
            continue
        temporary = path.with_name(f".{path.name}")
        columns = {"size": np.int64(found.size)}
        for key in ("names", "labels"):
            column = getattr(found, key)
            if column is not None:
                columns[key] = (column if isinstance(column, np.ndarray) else
                                np.frombuffer(_joined(column), np.uint8))
        np.savez_compressed(temporary, **columns)
        temporary.replace(path)


def read(folder: Path, split: str, digest: str) -> Listing | None:
    """What `write` wrote of a split; None if that is not there or is damaged."""
    try:
        with np.load(_file(folder, split, digest), allow_pickle=False) as columns:
            columns = {key: columns[key] for key in columns.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    size = int(columns.get("size", 0))
    found = Listing(size, *(_split(columns.get(key), size) for key in ("names", "labels")))
    return found if found.digest == digest else None


def _file(folder: Path, split: str, digest: str) -> Path:
    return folder / f"{urllib.parse.quote(split, safe='')}-{digest[:12]}.npz"


def _joined(column: Iterable[bytes]) -> bytes:
    """No path has a zero byte."""
    return b"\0".join(column)


def _split(column: np.ndarray | None, size: int):
    if column is None or column.dtype != np.uint8:
        return column
    return column.tobytes().split(b"\0") if size else []
