"""imgcls bench input: processor time per image of the input, beside raw decoding of its JPEGs."""

import contextlib
import functools
import importlib.resources
import io
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from imgcls_jax import environment
from imgcls_jax.cli import _flags
from imgcls_jax.cli.bench import FLAGS, chosen
from imgcls_jax.data.feed import OPTIONS
from imgcls_jax.errors import ConfigError, EnvironmentFailure

CROP = {"name": "random_resized_crop", "size": 224, "antialias": False}
FLIP = {"name": "flip"}
EVALUATION = ({"name": "resize_small", "size": 256, "library": "pillow"},
              {"name": "center_crop", "size": 224})
# Case -> (which photos, train or eval, transforms).
CASES = {
    "train": ("photo", "train", (CROP, FLIP)),
    "train from records": ("records", "train", (CROP, FLIP)),
    "train with antialias": ("photo", "train", ({**CROP, "antialias": True}, FLIP)),
    "train with randaugment": ("photo", "train", (CROP, FLIP, {"name": "randaugment"})),
    "train from short side 288": ("short side 288", "train", (CROP, FLIP)),
    "train from 2000 x 1500": ("large", "train", (CROP, FLIP)),
    "eval as Pillow": ("photo", "eval", EVALUATION)}
QUALITY = 90
NOISE = 10.5  # levels: about 95 KB a photo of 500 x 375, as those of ImageNet
LARGE = 48  # photos of 2000 x 1500 at most: 1.5 MB each


def main(overrides):
    _flags.start(FLAGS)
    with pinned():
        if FLAGS.config:
            sides, files = of_config(chosen(overrides), FLAGS.photos, FLAGS.batch or 64)
            found = measure(sides, files, rounds=FLAGS.rounds)
        else:
            with tempfile.TemporaryDirectory() as folder:
                sides, files = of_photos(Path(folder), FLAGS.photos, FLAGS.batch or 64,
                                         FLAGS.case or list(CASES))
                found = measure(sides, files, rounds=FLAGS.rounds)
    print(json.dumps({**found, **environment.environment()}, indent=1))


@contextlib.contextmanager
def pinned():
    """On one core, which TensorFlow, not imported before, sizes its pools of threads by."""
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
    """An endless input, of which rounds take so many batches."""

    def __init__(self, batches: Iterator[dict], count: int, steps: int):
        self._batches, self.images, self._steps = batches, count * steps, steps
        next(batches)

    def go(self) -> float:
        """Seconds of processor time per image.

        From full buffers to full buffers: what is made ahead is paid for in the same round.
        """
        began = rest()
        for _ in range(self._steps):
            next(self._batches)
        return (rest() - began) / self.images


def rest() -> float:
    """The process's processor time, once no thread of it has worked for 50 ms."""
    last = time.process_time()
    while True:
        time.sleep(0.05)
        now = time.process_time()
        if now - last < 0.002:
            return now
        last = now


def raw(files: list[bytes]) -> Callable[[], float]:
    """Seconds of processor time per image of libjpeg-turbo's whole, exact decoding in memory."""
    try:
        import simplejpeg
    except ImportError as error:
        raise EnvironmentFailure("raw decoding is measured with simplejpeg, which is not installed",
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
    """Rounds of every side in turn, raw decoding of `files` before and behind each of them.

    ratio: raw decoding's time over the side's, 1 if the side costs as much as only decoding the
    files; of a round it is taken to the mean of the two raw timings around the side.
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
    """(sides, JPEG files): the named cases on photos of 500 x 375 and the same in other forms."""
    from imgcls_jax.data.decoding.tensorflow import tensorflow

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
    sides = {name: side(opened(CASES[name][0]), *CASES[name][1:], count, batch) for name in cases}
    return sides, files


def of_config(config: dict, count: int, batch: int):
    """(sides, JPEG files): a config's own training and evaluation input, and the first JPEGs of
    what it trains on."""
    from imgcls_jax import datasets
    from imgcls_jax.cli import data
    from imgcls_jax.data.decoding.tensorflow import tensorflow
    from imgcls_jax.data.feed import options
    from imgcls_jax.registry import bind

    tensorflow()
    source = data.source(config)
    shared = bind(options, {k: v for k, v in config["data"].items() if k in OPTIONS},
                  "config.data")()
    splits = {kind: datasets.split(source, shared[kind]) for kind in ("train", "eval")}
    files = list(itertools.islice(jpegs(splits["train"]), count))
    if not files:
        raise ConfigError(f"{source.name} has no JPEGs that raw decoding could be measured on",
                          where="--config", fix="measure the made photos: leave --config out")
    sides = {kind: side(split, kind, config[key], count, batch, source.channels)
             for (kind, split), key in zip(splits.items(), ("transforms", "eval_transforms"),
                                           strict=True)}
    return sides, files


def jpegs(split) -> Iterator[bytes]:
    from imgcls_jax.data.curation import examples

    for _, image in examples.each(split, lambda index, image, label: image, threads=1):
        if isinstance(image, bytes) and image.startswith(b"\xff\xd8\xff"):
            yield image


def side(split, kind: str, transforms: tuple, count: int, batch: int, channels: int = 3) -> Side:
    from imgcls_jax.assembly.inputs import chain
    from imgcls_jax.data.batches import eval_batches, train_batches
    from imgcls_jax.transforms import TRANSFORMS

    built = chain(transforms, TRANSFORMS, "transforms")
    how = dict(batch_size=batch, rows=slice(0, batch), channels=channels)
    if kind == "train":
        batches = train_batches(split, built, seed=0, start_step=0, **how)
    else:
        batches = eval_batches(again_and_again(split), built, **how)
    return Side(batches, batch, max(1, count // batch))


def again_and_again(split):
    """A long split of the same examples: a pass over it is not spent on its beginning."""
    from imgcls_jax.types import Lookup, Shards

    if isinstance(split, Shards):
        return Shards(split.files * 1000, split.records, split.parse)
    return Lookup(split.size * 1000, lambda index: split.read(index % split.size),
                  lambda index: split.where(index % split.size))


def lookup(folder: Path, files):
    """A Lookup of files in a folder, read as the dataset `folder` reads them."""
    from imgcls_jax.datasets import DATASETS

    place = folder / "train" / "photo"
    place.mkdir(parents=True)
    for number, data in enumerate(files):
        (place / f"{number:05}.jpg").write_bytes(data)
    return DATASETS.get("folder")(dir=str(folder)).open("train")


def records(folder: Path, files: list[bytes]):
    """Shards: the files in TFRecords of tf.train.Example, in four."""
    from imgcls_jax.data.decoding.tensorflow import tensorflow
    from imgcls_jax.types import Shards

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
    """scikit-learn's two photos, 640 x 427."""
    from PIL import Image

    folder = importlib.resources.files("sklearn.datasets.images")
    return [Image.open(io.BytesIO((folder / name).read_bytes())).convert("RGB")
            for name in ("china.jpg", "flower.jpg")]


def photo(number: int, width: int, height: int):
    """A part of a scene, at random, in other light and with the grain of a camera."""
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
    """One photo of four is upright."""
    return (height, width) if number % 4 == 3 else (width, height)


def small(number: int) -> bytes:
    """The photo of 500 x 375 as `imgcls data prepare` stores it with a short side of 288."""
    from PIL import Image

    image = photo(number, *turned(number, 500, 375))
    return encoded(image.resize(turned(number, 384, 288), Image.Resampling.BICUBIC))


def encoded(image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, subsampling=2)
    return file.getvalue()
