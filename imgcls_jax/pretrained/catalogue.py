"""The known published weights: where they are, and the preprocessing they were measured with.
The facts are in catalogue.csv, which experiments/parity/catalogue.py writes."""

import csv
import functools
import importlib.resources
from collections.abc import Mapping

from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import near
from imgcls_jax.types import Weights


@functools.cache
def _read() -> Mapping[str, Mapping[str, Weights]]:
    text = importlib.resources.files(__package__).joinpath("catalogue.csv").read_text()
    found: dict[str, dict[str, Weights]] = {}
    for row in csv.DictReader(text.splitlines()):
        found.setdefault(row["model"], {})[row["tag"]] = Weights(
            file=row["file"], layout=row["layout"], image_size=int(row["image_size"]),
            resize=int(row["resize"]), interpolation=row["interpolation"],
            top1=_number(row["top1"]), top5=_number(row["top5"]), licence=row["licence"],
            sha256=row["sha256"], md5=row["md5"], mean=tuple(map(float, row["mean"].split())),
            std=tuple(map(float, row["std"].split())),
            params=int(row["params"]) if row["params"] else None, crop_mode=row["crop_mode"])
    return found


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


def models() -> list[str]:
    """The models that weights are published for, whether they are registered here or not."""
    return list(_read())


def weights(model: str) -> dict[str, Weights]:
    """Tag -> weights of one model, in the order of publication; {} where none are known."""
    return dict(_read().get(model, {}))


def find(name: str, where: str = "") -> tuple[str, str, Weights]:
    """"resnet50/imagenet1k_v2" -> (model, tag, weights).

    Raises ConfigError with the nearest names, or with the tags if none is given.
    """
    model, _, tag = name.partition("/")
    if model not in _read():
        raise ConfigError(f"no weights are known for a model {model!r}", where=where or name,
                          fix=f"{near(model, _read())} (imgcls weights list)")
    tags = _read()[model]
    if not tag:
        raise ConfigError(f"the weights of {model} need a tag", where=where or name,
                          fix=f"name one of {', '.join(f'{model}/{known}' for known in tags)}")
    if tag not in tags:
        raise ConfigError(f"no weights {tag!r} are known for {model}", where=where or name,
                          fix=f"{near(tag, tags)} (imgcls weights list {model})")
    return model, tag, tags[tag]
