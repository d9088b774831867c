"""Names of the 1,000 ImageNet classes, in imagenet1k.txt with their source and licence."""

import functools
import importlib.resources
from collections.abc import Mapping, Sequence


@functools.cache
def imagenet() -> Mapping[str, str]:
    """WordNet id -> name, in the order of the logits: {"n01440764": "tench", ...}."""
    text = importlib.resources.files(__package__).joinpath("imagenet1k.txt").read_text()
    return dict(line.split(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def named(classes: Sequence[str]) -> tuple[str, ...]:
    """The names of the ImageNet classes, if `classes` are their WordNet ids; else `classes`."""
    known = imagenet()
    return tuple(known.values()) if tuple(classes) == tuple(known) else tuple(classes)


def numbered(count: int) -> tuple[str, ...]:
    """Of an output about which only the number of classes is known: 1,000 are those of ImageNet,
    others have numbers for names."""
    known = imagenet()
    return tuple(known.values()) if count == len(known) else tuple(map(str, range(count)))
