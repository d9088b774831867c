"""Processor time per image of the input, compared with raw decoding of the same JPEGs."""

import contextlib
import functools
import importlib.resources
import io
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from imgcls_jax import datasets
from imgcls_jax.data.batches import eval_batches, train_batches
from imgcls_jax.data.curation import examples
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import ConfigError, EnvironmentFailure
from imgcls_jax.transforms import TRANSFORMS
from imgcls_jax.types import Lookup, Shards, Source

# Transforms, as (name, arguments).
CROP = ("random_resized_crop", {"size": 224, "antialias": False})
FLIP = ("flip", {})
EVALUATION = (("resize_small", {"size": 256, "library": "pillow"}), ("center_crop", {"size": 224}))
# Case -> (which photos, train or eval, transforms).
CASES = {
    "train": ("photo", "train", (CROP, FLIP)),
    "train from records": ("records", "train", (CROP, FLIP)),
    "train with antialias": ("photo", "train", ((CROP[0], {**CROP[1], "antialias": True}), FLIP)),
    "train with randaugment": ("photo", "train", (CROP, FLIP, ("randaugment", {}))),
    "train from short side 288": ("short side 288", "train", (CROP, FLIP)),
    "train from 2000 x 1500": ("large", "train", (CROP, FLIP)),
    "eval as Pillow": ("photo", "eval", EVALUATION)}
QUALITY = 90
NOISE = 10.5  # levels; a photo of 500 x 375 then has about 95 KB, as those of ImageNet
LARGE = 48  # at most so many photos of 2000 x 1500, of 1.5 MB each


@contextlib.contextmanager
def pinned():
    """Within it the process is on one core.

    TensorFlow sizes its thread pools by it when it is imported, which must come after. Raises
    EnvironmentFailure where the system cannot do it.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise EnvironmentFailure("this system cannot pin a process to a core",
                                 where="imgcls bench input", fix="measure on Linux")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# ---- timing -----------------------------------------------------------------------------------


class Side:
    """An endless input of `batch` images at a time, of which a round takes `steps` batches."""

    def __init__(self, batches: Iterator[dict], batch: int, steps: int):
        self._batches, self.images, self._steps = batches, batch * steps, steps
        next(batches)

    def go(self) -> float:
        """Seconds of processor time per image.

        A round begins and ends with full buffers, so that it pays for what is made ahead.
        """
        began = rest()
        for _ in range(self._steps):
            next(self._batches)
        return (rest() - began) / self.images


def rest() -> float:
    """Waits until no thread of the process has worked for 50 ms; gives its processor time."""
    last = time.process_time()
    while True:
        time.sleep(0.05)
        now = time.process_time()
        if now - last < 0.002:
            return now
        last = now


def raw(files: list[bytes]) -> Callable[[], float]:
    """() -> seconds of processor time per image in which libjpeg-turbo decodes files in memory.

    Raises EnvironmentFailure where simplejpeg is not installed.
    """
    try:
        import simplejpeg
    except ImportError as error:
        raise EnvironmentFailure("simplejpeg, which measures raw decoding, is not installed",
                                 where="imgcls bench input",
                                 fix='pip install "imgcls_jax[bench]"') from error

    def go() -> float:
        began = rest()
        for data in files:
            simplejpeg.decode_jpeg(data, "RGB")
        return (time.process_time() - began) / len(files)

    go()
    return go


def measure(sides: dict[str, Side], files: list[bytes], *, rounds: int) -> dict:
    """Rounds of every side in turn, with raw decoding of `files` before and after each.

    ratio_to_raw: the time of raw decoding over that of the side, 1 if the side costs no more than
    decoding its files. In a round, raw decoding's is the mean of the one before and the one after.
    """
    decode = raw(files)
    taken, ratios = ({name: [] for name in sides} for _ in range(2))
    decoding = [decode()]
    for _ in range(rounds):
        for name, side in sides.items():
            taken[name].append(side.go())
            decoding.append(decode())
            ratios[name].append(statistics.mean(decoding[-2:]) / taken[name][-1])
    return {"raw": _row(decoding), "files": len(files), "rounds": rounds,
            "file_bytes": statistics.mean(map(len, files)),
            "cases": {name: {**_row(taken[name]), "ratio_to_raw": _spread(ratios[name])}
                      for name in sides}}


def _row(seconds: list[float]) -> dict:
    return {"images_per_second": 1 / statistics.median(seconds),
            "milliseconds_per_image": _spread([1e3 * one for one in seconds])}


def _spread(values: list[float]) -> dict:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


# ---- what is measured -------------------------------------------------------------------------


def of_photos(folder: Path, count: int, batch: int, cases: list[str]):
    """(sides, JPEG files): the named cases on `count` photos of 500 x 375, in several forms.

    folder: an empty one, for the files. batch: images of a batch. Raises ConfigError for a name
    that is not in CASES.
    """
    unknown = set(cases) - set(CASES)
    if unknown:
        raise ConfigError(f"no case is called {', '.join(sorted(unknown))}", where="--case",
                          fix=f"use any of: {'; '.join(CASES)}")
    tensorflow()
    files = [encoded(photo(number, *turned(number, 500, 375))) for number in range(count)]
    forms = {
        "photo": lambda: lookup(folder / "photo", files),
        "records": lambda: records(folder, files),
        "short side 288": lambda: lookup(folder / "small", map(small, range(count))),
        "large": lambda: lookup(folder / "large", (
            encoded(photo(number, *turned(number, 2000, 1500)))
            for number in range(min(count, LARGE))))}
    opened = functools.cache(lambda form: forms[form]())
    sides = {}
    for name in cases:
        form, kind, chain = CASES[name]
        transforms = [TRANSFORMS.get(called)(**arguments) for called, arguments in chain]
        sides[name] = side(opened(form), kind, transforms, count, batch)
    return sides, files


def of_data(source: Source, splits: Mapping[str, str], transforms: Mapping[str, Sequence],
            count: int, batch: int):
    """(sides, JPEG files): training and evaluation from a dataset, and the first of its JPEGs.

    splits, transforms: those of "train" and of "eval". count: images of a round, and files at most.
    Raises ConfigError where the split to train on has no JPEGs.
    """
    tensorflow()
    opened = {kind: datasets.split(source, name) for kind, name in splits.items()}
    files = list(itertools.islice(jpegs(opened["train"]), count))
    if not files:
        raise ConfigError(f"{source.name} has no JPEGs, which raw decoding is measured on",
                          where="--config", fix="leave --config out to measure generated photos")
    return {kind: side(split, kind, transforms[kind], count, batch, source.channels)
            for kind, split in opened.items()}, files


def jpegs(split: Lookup | Shards) -> Iterator[bytes]:
    """The examples that are JPEG files."""
    for _, image in examples.each(split, lambda index, image, label: image, threads=1):
        if isinstance(image, bytes) and image.startswith(b"\xff\xd8\xff"):
            yield image


def side(split: Lookup | Shards, kind: str, transforms: Sequence[Callable], count: int, batch: int,
         channels: int = 3) -> Side:
    """Batches of a split, as they are made to train or to evaluate; a round is `count` images."""
    how = dict(batch_size=batch, rows=slice(0, batch), channels=channels)
    if kind == "train":
        batches = train_batches(split, transforms, seed=0, start_step=0, **how)
    else:
        batches = eval_batches(repeated(split), transforms, **how)
    return Side(batches, batch, max(1, count // batch))


def repeated(split: Lookup | Shards) -> Lookup | Shards:
    """The split 1,000 times over: a pass over it does not begin again within a measurement."""
    if isinstance(split, Shards):
        return Shards(split.files * 1000, split.records, split.parse)
    return Lookup(split.size * 1000, lambda index: split.read(index % split.size),
                  lambda index: split.where(index % split.size))


def lookup(folder: Path, files: Iterable[bytes]) -> Lookup:
    """Writes the files to a folder, and opens it as the dataset `folder` does."""
    place = folder / "train" / "photo"
    place.mkdir(parents=True)
    for number, data in enumerate(files):
        (place / f"{number:05}.jpg").write_bytes(data)
    return datasets.DATASETS.get("folder")(dir=str(folder)).open("train")


def records(folder: Path, files: list[bytes]) -> Shards:
    """Writes the files to four TFRecord files of tf.train.Example."""
    tf, shards = tensorflow(), []
    for first in range(4):
        path = str(folder / f"{first}.tfrecord")
        own = files[first::4]
        with tf.io.TFRecordWriter(path) as writer:
            for data in own:
                image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
                label = tf.train.Feature(int64_list=tf.train.Int64List(value=[0]))
                writer.write(tf.train.Example(features=tf.train.Features(
                    feature={"image": image, "label": label})).SerializeToString())
        shards.append((path, 0, len(own)))
    features = {"image": tf.io.FixedLenFeature((), tf.string),
                "label": tf.io.FixedLenFeature((), tf.int64)}
    return Shards(tuple(shards), tf.data.TFRecordDataset,
                  lambda record: tf.io.parse_single_example(record, features))


# ---- photos -----------------------------------------------------------------------------------


@functools.cache
def scenes() -> list:
    """The two photos that come with scikit-learn, 640 x 427."""
    from PIL import Image

    folder = importlib.resources.files("sklearn.datasets.images")
    return [Image.open(io.BytesIO((folder / name).read_bytes())).convert("RGB")
            for name in ("china.jpg", "flower.jpg")]


def photo(number: int, width: int, height: int):
    """A random part of a scene, brighter or darker, with the noise of a camera."""
    from PIL import Image

    rng = np.random.Generator(np.random.Philox(number))
    scene = scenes()[number % 2]
    share, left, top, light, mirror = rng.random(5)
    scale = (0.6 + 0.4 * share) * min(scene.width / width, scene.height / height)
    across, down = scale * width, scale * height
    left, top = left * (scene.width - across), top * (scene.height - down)
    levels = np.asarray(scene.resize((width, height), Image.Resampling.BICUBIC,
                                     box=(left, top, left + across, top + down)), np.float32)
    levels = levels[:, ::-1 if mirror < 0.5 else 1] * (0.7 + 0.5 * light)
    levels = levels + NOISE * rng.standard_normal((height, width, 1), np.float32)
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


def turned(number: int, width: int, height: int) -> tuple[int, int]:
    """(width, height) of a photo: one of four is upright."""
    return (height, width) if number % 4 == 3 else (width, height)


def small(number: int) -> bytes:
    """The photo of 500 x 375 as `imgcls data prepare` stores it with a short side of 288."""
    from PIL import Image

    image = photo(number, *turned(number, 500, 375))
    return encoded(image.resize(turned(number, 384, 288), Image.Resampling.BICUBIC))


def encoded(image) -> bytes:
    """The picture as a JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, subsampling=2)
    return file.getvalue()
