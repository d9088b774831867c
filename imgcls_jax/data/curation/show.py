"""imgcls data show: examples as they are, and beside each what training would see of it."""

import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imgcls_jax import datasets, durations
from imgcls_jax.cli import data
from imgcls_jax.cli.data import FLAGS, printable
from imgcls_jax.data import feed
from imgcls_jax.data.batches import eval_batches, train_batches
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import EnvironmentFailure
from imgcls_jax.registry import bind
from imgcls_jax.types import Lookup, Shards, Source

SIDE = (112, 224)  # pixels of a cell: as the images are, within these
GAP, MARGIN = 10, 20
INK, PALE, PAPER = (25, 25, 25), (120, 120, 120), (255, 255, 255)


def main(loaded: dict):
    out = Path(FLAGS.out or "data.png").expanduser()
    picture = show(loaded, split=FLAGS.split, rows=FLAGS.rows, columns=FLAGS.columns,
                   seed=FLAGS.seed)
    try:
        picture.save(out, "PNG")
    except OSError as error:
        raise EnvironmentFailure(f"the picture cannot be written: {error.strerror}",
                                 where=str(out), fix="choose another --out") from error
    print(out)


def show(loaded: Mapping, *, split: str | None = None, rows: int = 6, columns: int = 5,
         seed: int = 0) -> Image.Image:
    """A grid: a row per example, drawn by the seed; first the original, then `columns` epochs of
    it, through the host transforms of the pipeline and the device transforms of the step."""
    loaded = durations.at_phase(loaded, durations.phases(loaded) - 1)  # the strongest, if it grows
    options = bind(feed.options, {k: v for k, v in loaded["data"].items() if k in feed.OPTIONS},
                   "config.data")()
    source = feed.select(data.source(loaded), options, loaded["seed"])
    name = split or options["train"]
    sample = _sample(datasets.split(source, name), rows, seed)
    originals = [(batch["image"][0], batch["label"][0]) for batch in eval_batches(
        sample, [], batch_size=1, rows=slice(0, 1), channels=source.channels,
        classes=len(source.classes))]
    augmented = _augmented(loaded, source, sample, columns, seed)
    chains = [", ".join(choice["name"] for choice in loaded[key]) or "nothing"
              for key in ("transforms", "device_transforms")]
    title = f"{source.name}, {name}, {sample.size} of {datasets.size(source, name):,} examples"
    below = f"originals, and as trained on: {chains[0]}; on the device: {chains[1]}"
    return _draw(title, below, originals, augmented, [sample.where(i) for i in range(sample.size)],
                 source.classes)


def _sample(split: Lookup | Shards, count: int, seed: int) -> Lookup:
    """A few examples of a split, which stay undecoded."""
    chosen = np.sort(np.random.default_rng(seed).choice(split.size, min(count, split.size),
                                                        replace=False))
    tf = tensorflow()
    if isinstance(split, Lookup):
        def read(index):
            return split.read(tf.gather(chosen, index))
    else:
        records = [_record(split, int(i)) for i in chosen]

        def read(index):
            return split.parse(tf.gather(records, index))

    return Lookup(len(chosen), read, lambda index: split.where(int(chosen[index])))


def _record(split: Shards, index: int) -> bytes:
    tf = tensorflow()
    path, place = split.place(index)
    for record in split.records(tf.constant(os.fsencode(path))).skip(place).take(1):
        return record.numpy()
    return b""  # what the pipeline, too, takes for a record that is not there


def _augmented(loaded: Mapping, source: Source, sample: Lookup, columns: int, seed: int) -> list:
    """`columns` times (images u8[R,H,W,C], targets f32[R,K]), the rows in the sample's order."""
    from imgcls_jax.assembly.inputs import chain
    from imgcls_jax.transforms import TRANSFORMS

    transforms = chain(loaded["transforms"], TRANSFORMS, "config.transforms")
    batches = train_batches(
        sample, transforms, batch_size=sample.size, seed=seed, start_step=0,
        rows=slice(0, sample.size), channels=source.channels, classes=len(source.classes))
    on_device = _device_transforms(loaded, source, seed)
    found = []
    for step, batch in zip(range(columns), batches, strict=False):
        order = np.argsort(batch["id"])  # a batch is an epoch of the sample
        label = batch["label"][order]
        targets = label if label.ndim == 2 else np.eye(len(source.classes), dtype=np.float32)[label]
        found.append(on_device(step, batch["image"][order], targets))
    return found


def _device_transforms(loaded: Mapping, source: Source, seed: int):
    """(step, images u8[B,H,W,C], targets f32[B,K]) -> both behind the device transforms, the images
    as levels again. Keys are those of the step."""
    if not loaded["device_transforms"]:
        return lambda step, images, targets: (images, targets)
    import jax

    from imgcls_jax.assembly.inputs import chain, preparation
    from imgcls_jax.assembly.network import normaliser, statistics
    from imgcls_jax.device_transforms import DEVICE_TRANSFORMS
    from imgcls_jax.models import MODELS
    from imgcls_jax.types import ModelSpec

    mixers = chain(loaded["device_transforms"], DEVICE_TRANSFORMS,
                   "config.device_transforms")
    model = loaded["model"]["name"]
    spec = ModelSpec(name=model, **MODELS.facts(model))
    mean, std = statistics(loaded["data"], spec, source.channels)
    normalise = normaliser(mean, std, "float32")

    augment = preparation(mixers, normalise)

    @jax.jit
    def prepare(step, images, targets):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), 1)
        return augment(key, images, targets)

    def levels(step, images, targets):
        images, targets = map(np.asarray, prepare(step, images, targets))
        shown = (images * np.array(std) + np.array(mean)) * 255
        return np.clip(np.round(shown), 0, 255).astype(np.uint8), targets

    return levels


# ---- the picture --------------------------------------------------------------------------------


def _draw(title: str, below: str, originals: list, augmented: list, names: Sequence[str],
          classes: Sequence[str]) -> Image.Image:
    head, small = ImageFont.load_default(20), ImageFont.load_default(14)
    side = int(np.clip(max(augmented[0][0].shape[1:3]), *SIDE))
    line = 18
    cell_width, cell_height = side + GAP, side + 2 * line + GAP
    across = 2 * MARGIN + (1 + len(augmented)) * cell_width + GAP
    top = MARGIN + 28 + line + GAP
    picture = Image.new("RGB", (across, top + len(originals) * cell_height + MARGIN), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, MARGIN), _cut(title, head, across - 2 * MARGIN), INK, head)
    draw.text((MARGIN, MARGIN + 28), _cut(below, small, across - 2 * MARGIN), PALE, small)
    for row, ((image, label), name) in enumerate(zip(originals, names, strict=True)):
        y = top + row * cell_height
        height, width = image.shape[:2]
        targets = label if np.ndim(label) else np.eye(len(classes))[label]
        _place(picture, image, MARGIN, y, side)
        labels = ", ".join(classes[k] for k in np.flatnonzero(targets > 0.5))
        draw.text((MARGIN, y + side + 2), _cut(labels, small, side), INK, small)
        file = name.rpartition("/")[2]
        draw.text((MARGIN, y + side + 2 + line), _cut(f"{width} x {height}, {file}", small, side),
                  PALE, small)
        for column, (images, mixed) in enumerate(augmented):
            x = MARGIN + GAP + (1 + column) * cell_width
            _place(picture, images[row], x, y, side)
            if not np.allclose(mixed[row], targets, atol=1e-3):
                for number, k in enumerate(np.argsort(-mixed[row], kind="stable")[:2]):
                    said = _cut(f"{mixed[row][k]:.0%} {classes[k]}", small, side)
                    draw.text((x, y + side + 2 + number * line), said, INK, small)
    return picture


def _place(picture: Image.Image, pixels: np.ndarray, x: int, y: int, side: int):
    """The image in the middle of its cell: enlarged in whole steps, or shrunk."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    longer = max(image.size)
    if longer <= side:
        image = image.resize([length * (side // longer) for length in image.size],
                             Image.Resampling.NEAREST)
    else:
        image = image.resize([max(round(length * side / longer), 1) for length in image.size],
                             Image.Resampling.LANCZOS)
    picture.paste(image, (x + (side - image.width) // 2, y + (side - image.height) // 2))


def _cut(text: str, font, width: int) -> str:
    """The text as far as there is room for it; Pillow's own font has ASCII alone."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    text = printable(plain).encode("ascii", "backslashreplace").decode()
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
