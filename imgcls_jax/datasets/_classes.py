"""The names of classes as a config gives them."""

import collections
import os
import unicodedata
from collections.abc import Iterable

from imgcls_jax import untrusted
from imgcls_jax.errors import DataError


def names(classes: int | str | tuple[str, ...]) -> tuple[str, ...]:
    """classes: how many (they are named by their numbers); a file with one name per line; or the
    names. DataError for a file that cannot be read or is empty, and for a name given twice."""
    where = "config.data.classes"
    if isinstance(classes, int):
        return tuple(map(str, range(classes)))
    if isinstance(classes, str):
        where = os.path.expanduser(classes)
        try:
            text = untrusted.read(where).decode("utf-8-sig", "surrogateescape")
        except OSError as error:
            raise DataError(f"the file of classes cannot be read: {error.strerror}", where=where,
                            fix="give a file with one name per line, or the names") from error
        found = tuple(line.strip() for line in text.split("\n") if line.strip())
        if not found:
            raise DataError("the file of classes is empty", where=where,
                            fix="write one name per line")
    else:
        found = tuple(classes)
    found = tuple(map(composed, found))
    twice = [name for name, count in collections.Counter(found).items() if count > 1]
    if twice:
        raise DataError(f"some classes are named twice: {twice[:8]}", where=where,
                        fix="name every class once")
    return found


def composed(name: str) -> str:
    """In Unicode's form NFC, as `_paths.composed`."""
    return unicodedata.normalize("NFC", name)


def alike(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that differ in case or spaces only, as those of one class may."""
    groups = collections.defaultdict(list)
    for name in names:
        groups["".join(composed(name).casefold().split())].append(name)
    return [group for group in groups.values() if len(group) > 1]
