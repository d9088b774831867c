"""imgcls data prepare: any dataset as record files, once, so that every epoch is read faster."""

import io
import itertools
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from imgcls_jax.cli import data
from imgcls_jax.cli.data import FLAGS
from imgcls_jax.data.curation import examples, recording
from imgcls_jax.data.decoding import pillow
from imgcls_jax.errors import ConfigError, DataError, EnvironmentFailure
from imgcls_jax.types import Lookup, Source

PLAN = "plan.json"
SAMPLE = 64  # examples that say how large the others are


def main(loaded: dict):
    if not FLAGS.out:
        raise ConfigError("where to?", where="command line", fix="--out=FOLDER, a new one")
    made = data.source(loaded)
    plan = {"data": {k: v for k, v in loaded["data"].items() if k not in ("train", "eval")},
            "splits": data.splits(made, FLAGS.splits), "short_side": FLAGS.short_side,
            "quality": FLAGS.quality, "shards": FLAGS.shards, "shard_mb": FLAGS.shard_mb,
            "format": FLAGS.format, "on_error": FLAGS.on_error, "seed": FLAGS.seed}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of images a little below the limit of pixels
        listed = prepare(made, Path(FLAGS.out).expanduser(), plan, data.threads())
    for name, split in listed["splits"].items():
        size = sum(file["bytes"] for file in split["files"])
        print(f"{name:10} {split['count']:,} examples in {len(split['files']):,} files, "
              f"{size / 1e6:,.1f} MB")
    print(f"train with it: imgcls train --config=... --config.data.name=prepared "
          f"--config.data.dir={FLAGS.out}")


def prepare(made: Source, out: Path, plan: dict, threads: int) -> dict:
    """Writes the dataset to a folder, which appears when it is whole; gives its dataset.json.

    plan: what decides the bytes that are written. A folder of the same plan is left as it is, and
    one that was cut off is gone on with; ConfigError for anything else that stands there.
    """
    if (out / PLAN).is_file() and _read(out / PLAN) == _plain(plan):
        print(f"{out} is prepared already", file=sys.stderr)
        return _read(out / "dataset.json")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("there is something else already", where=str(out),
                          fix="name a new folder, or remove this one")
    partial = out.with_name(f"{out.name}.partial")
    if partial.exists() and _read(partial / PLAN) != _plain(plan):
        raise ConfigError("an unfinished run of other settings or data stands in the way",
                          where=str(partial), fix="repeat its command line, or remove it")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        (partial / PLAN).write_text(json.dumps(plan, indent=1))
        listed = _write(made, partial, plan, threads)
        (partial / "progress.jsonl").unlink(missing_ok=True)
        if out.exists():
            out.rmdir()
        partial.replace(out)
    except OSError as error:
        raise EnvironmentFailure(f"cannot be written: {error.strerror}",
                                 where=str(error.filename or partial),
                                 fix="make room or choose another --out; the same line then goes "
                                     "on where this one ended") from error
    return listed


def _write(made: Source, folder: Path, plan: dict, threads: int) -> dict:
    done, splits, bad = recording.remembered(folder), {}, []

    decode = examples.decoder()

    def encode(image, label):
        return encoded(image, decode, plan["short_side"], plan["quality"])

    for number, name in enumerate(plan["splits"]):
        if not made.sizes[name]:
            raise DataError(f"the split {name!r} has no examples", where=made.name,
                            fix="choose others with --splits")
        split = made.open(name)
        shards = plan["shards"] or _shards(split, encode, plan["shard_mb"] * 1e6, threads)
        progress, files = data.Progress(name, split.size), []
        for file in recording.write_split(
                split, name, folder, encode=encode, shards=min(shards, split.size),
                seed=(plan["seed"], number), form=plan["format"], skip=plan["on_error"] == "skip",
                threads=threads, done=done):
            progress.add(file.count + len(file.bad))
            files.append(file)
            bad += file.bad
        splits[name] = {"files": [{"file": file.file, "count": file.count, "bytes": file.bytes,
                                   "sha256": file.sha256} for file in files],
                        "count": sum(file.count for file in files)}
    resized = plan["short_side"] is not None
    listed = {
        "version": 1, "name": made.name, "classes": list(made.classes), "kind": made.kind,
        "channels": made.channels, "image_size": None if resized else made.image_size,
        "splits": splits, "format": plan["format"], "resized_short_side": plan["short_side"],
        "resized_by": "Pillow, bicubic" if resized else None,
        "quality": plan["quality"] if resized else None, "seed": plan["seed"]}
    if bad:
        (folder / "bad_samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bad))
        print(f"left out, and listed in bad_samples.jsonl: {len(bad):,}", file=sys.stderr)
    (folder / "dataset.json").write_text(json.dumps(listed, indent=1))
    return listed


def encoded(image, decode: Callable, short_side: int | None, quality: int) -> bytes:
    """Encoded bytes or u8[H,W,C] -> encoded bytes. decode: examples.decoder().

    Bytes whose shorter side is no longer than short_side stay as they are, arrays become PNG.
    Larger ones are decoded by the rule of training, shrunk by Pillow's bicubic filter, in color or
    gray as they were, and become JPEG, or PNG of an array. DataError for what cannot be decoded.
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
    """How many files of about `target` bytes the split makes, by a few of its examples."""
    chosen = np.unique(np.linspace(0, split.size - 1, SAMPLE).astype(int))
    sample = examples.each(split, lambda index, *example: len(encode(*example)),
                            chosen if isinstance(split, Lookup) else None, threads=threads)
    sizes = [size for _, size in itertools.islice(sample, SAMPLE)
             if not isinstance(size, DataError)]
    return max(round(np.mean(sizes or [1]) * split.size / target), 1)


def _read(path: Path):
    """What the JSON file holds; None if it is not there or damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _plain(plan: dict) -> dict:
    """As it comes back from JSON."""
    return json.loads(json.dumps(plan))
