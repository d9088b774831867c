"""Writes any dataset as record files, once, so that every epoch is read faster."""

import dataclasses
import io
import itertools
import json
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imgcls_jax.config import diff, plain, to_json
from imgcls_jax.data import listing
from imgcls_jax.data.curation import examples, recording
from imgcls_jax.data.curation.progress import Progress
from imgcls_jax.data.decoding import pillow
from imgcls_jax.errors import ConfigError, DataError, EnvironmentFailure
from imgcls_jax.types import Lookup, Shards, Source

PLAN, NEW_PLAN, EXAMPLES = "plan.json", ".plan.json.tmp", "examples"
SOURCES = "sources.json"
SAMPLE = 64  # examples from which the size of the others is estimated


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """All that decides the bytes that are written, but for the examples; plan.json holds it and a
    digest of their list, to compare later runs with.

    data: what names the dataset, as JSON has it. short_side: pixels; larger images are shrunk until
    their shorter side has so many, None keeps all as they are. quality: of the JPEG of a shrunk
    image, 1 to 100. shards: files of every split; None: as many as shard_mb asks for, the size of a
    file in MB. format: "tfrecord" or "array_record". on_error: "skip" leaves out an example that
    cannot be read, "fail" ends there. seed: of the order.
    """

    data: Mapping[str, Any]
    splits: Sequence[str]
    short_side: int | None = None
    quality: int = 95
    shards: int | None = None
    shard_mb: int = 128
    format: str = "tfrecord"
    on_error: str = "fail"
    seed: int = 0

    def json(self) -> dict:
        """As it comes back from a file: lists in place of tuples."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def prepare(made: Source, out: Path, plan: Plan, threads: int = 1) -> dict:
    """Writes the dataset to a folder, which appears when it is complete; gives its dataset.json.

    A folder of the same plan and examples is left as it is, and an interrupted run of them is
    continued; of its files those are written again whose sources have changed in size or time.
    Raises ConfigError where the folder holds anything else, or the list of examples has changed,
    DataError for examples that cannot be read, and EnvironmentFailure where nothing can be written.
    """
    for name in plan.splits:
        if not made.sizes[name]:
            raise DataError(f"the split {name!r} has no examples", where=made.name,
                            fix="choose others with --splits")
    opened = {name: made.open(name) for name in plan.splits}
    listings = {name: listing.listing(split) for name, split in opened.items()}
    whole = plan.json() | {"examples": {name: found.facts() for name, found in listings.items()}}
    if (out / PLAN).is_file() and _is_ours(out, plan, listings, made.classes):
        _check_sources(out, opened)
        print(f"{out} is prepared already", file=sys.stderr)
        return json.loads((out / "dataset.json").read_bytes())
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("--out holds something else already" + _settings(out, plan),
                          where=str(out), fix="name a new folder, or remove this one")
    partial = out.with_name(f"{out.name}.partial")
    begun = partial.exists() and {entry.name for entry in partial.iterdir()} - {EXAMPLES, NEW_PLAN}
    if begun and not _is_ours(partial, plan, listings, made.classes):
        raise ConfigError("there is an unfinished run with other settings"
                          + _settings(partial, plan), where=str(partial),
                          fix="repeat its command line, or remove it")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        if not begun:  # the plan comes last: without it nothing else has been written
            listing.write(partial / EXAMPLES, listings)
            (partial / NEW_PLAN).write_text(to_json(whole), encoding="utf-8")
            (partial / NEW_PLAN).replace(partial / PLAN)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of images a little below the limit of pixels
            # Before reading: a later change is noticed.
            sources = {name: recording.state(split, np.arange(split.size))
                       for name, split in opened.items()}
            listed = _write(made, opened, partial, plan, threads)
        (partial / SOURCES).write_text(to_json(sources))
        (partial / "progress.jsonl").unlink(missing_ok=True)
        if out.exists():
            out.rmdir()
        partial.replace(out)
    except OSError as error:
        raise EnvironmentFailure(f"the data cannot be written: {error.strerror}",
                                 where=str(error.filename or partial),
                                 fix="free disk space, or choose another --out; the same command "
                                     "then continues where this one ended") from error
    return listed


def _is_ours(folder: Path, plan: Plan, listings: Mapping[str, listing.Listing],
             classes: Sequence[str]) -> bool:
    """Whether a folder is of this plan. ConfigError if it is, but of other examples."""
    said = _read(folder / PLAN)
    if not isinstance(said, dict):
        return False
    before = said.pop("examples", None)
    if said != plan.json():
        return False
    if before is None:  # an earlier version wrote it, which did not know
        return (folder / "dataset.json").is_file()
    changes = listing.changes(before, listings, folder / EXAMPLES, classes)
    if changes:
        raise ConfigError("the dataset has changed since this was begun: " + "; ".join(changes),
                          where=str(folder), fix="restore the dataset, or remove this folder and "
                                                 "prepare it from the beginning")
    return True


def _check_sources(out: Path, opened: Mapping[str, Lookup | Shards]):
    """ConfigError if the files that a finished folder was made from have changed since."""
    before = _read(out / SOURCES) or {}  # an earlier version did not write it
    changed = [name for name, split in opened.items() if name in before
               and before[name] != recording.state(split, np.arange(split.size))]
    if changed:
        raise ConfigError(f"the files of {' and '.join(changed)} have changed since this was "
                          "prepared, or their times alone have", where=str(out),
                          fix="use it as it is if you know that only times changed; else remove it "
                              "and prepare the dataset again")


def _settings(folder: Path, plan: Plan) -> str:
    """What differs from the plan of a folder; "" if it has none."""
    said = _read(folder / PLAN)
    if not isinstance(said, dict):
        return ""
    said.pop("examples", None)
    return ": " + "; ".join(diff(plain(said), plain(plan.json())))


def _write(made: Source, opened: Mapping[str, Lookup | Shards], folder: Path, plan: Plan,
           threads: int) -> dict:
    done, splits, bad = recording.remembered(folder), {}, []
    decode = examples.decoder()

    def encode(image, label):
        return encoded(image, decode, plan.short_side, plan.quality)

    for number, name in enumerate(plan.splits):
        split = opened[name]
        shards = plan.shards or _shards(split, encode, plan.shard_mb * 1e6, threads)
        progress, files = Progress(name, split.size), []
        for file in recording.write_split(
                split, name, folder, encode=encode, shards=min(shards, split.size),
                seed=(plan.seed, number), form=plan.format, skip=plan.on_error == "skip",
                threads=threads, done=done):
            progress.add(file.count + len(file.bad))
            files.append(file)
            bad += file.bad
        splits[name] = {"files": [{"file": file.file, "count": file.count, "bytes": file.bytes,
                                   "sha256": file.sha256} for file in files],
                        "count": sum(file.count for file in files)}
    resized = plan.short_side is not None
    listed = {
        "version": 1, "name": made.name, "classes": list(made.classes), "kind": made.kind,
        "channels": made.channels, "image_size": None if resized else made.image_size,
        "splits": splits, "format": plan.format, "resized_short_side": plan.short_side,
        "resized_by": "Pillow, bicubic" if resized else None,
        "quality": plan.quality if resized else None, "seed": plan.seed}
    if bad:
        (folder / "bad_samples.jsonl").write_text(
            "".join(to_json(row, indent=None) + "\n" for row in bad), encoding="utf-8")
        print(f"{len(bad):,} examples are left out, and listed in bad_samples.jsonl",
              file=sys.stderr)
    (folder / "dataset.json").write_text(to_json(listed), encoding="utf-8")
    return listed


def encoded(image, decode: Callable, short_side: int | None, quality: int) -> bytes:
    """An image, encoded bytes or u8[H,W,C] -> encoded bytes. decode: examples.decoder().

    Larger images than short_side, in pixels, are decoded as in training, shrunk by Pillow's bicubic
    filter in color or gray as they were, and become JPEG of that quality. Others stay as they are.
    Arrays become PNG. Raises DataError for what cannot be decoded.
    """
    from PIL import Image

    if isinstance(image, bytes):
        pixels = decode(image)
        with Image.open(io.BytesIO(image), formats=pillow.FORMATS) as header:
            gray = header.mode == "L"
        picture = Image.fromarray(pixels[..., 0] if gray else pixels)
    else:
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    shorter = min(picture.size)
    if short_side and shorter > short_side:
        size = [max(round(side * short_side / shorter), 1) for side in picture.size]
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    elif isinstance(image, bytes):
        return image
    out = io.BytesIO()
    if isinstance(image, bytes):
        picture.save(out, "JPEG", quality=quality)
    else:
        picture.save(out, "PNG")
    return out.getvalue()


def _shards(split, encode, target: float, threads: int) -> int:
    """The number of files of about `target` bytes, estimated from a few examples of the split."""
    chosen = np.unique(np.linspace(0, split.size - 1, SAMPLE).astype(int))
    sample = examples.each(split, lambda index, *example: len(encode(*example)),
                            chosen if isinstance(split, Lookup) else None, threads=threads)
    sizes = [size for _, size in itertools.islice(sample, SAMPLE)
             if not isinstance(size, DataError)]
    return max(round(np.mean(sizes or [1]) * split.size / target), 1)


def _read(path: Path):
    """The content of a JSON file; None if it is not there or is damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
