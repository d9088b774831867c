"""A picture of examples: each as it is, and next to it what training would see of it."""

import os
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imgcls_jax import datasets
from imgcls_jax.data.batches import eval_batches, train_batches
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import printable
from imgcls_jax.types import Lookup, Shards, Source

SIDE = (112, 224)  # least and most pixels of a cell, which is as large as the images otherwise
GAP, MARGIN = 10, 20
INK, PALE, PAPER = (25, 25, 25), (120, 120, 120), (255, 255, 255)


def show(source: Source, split: str, transforms: Sequence[Callable], on_device: Callable, *,
         trained_on: str, rows: int = 6, columns: int = 5, seed: int = 0) -> Image.Image:
    """A grid with a row for each of `rows` random examples: the original, then `columns` epochs.

    transforms: the host's, as in training. on_device: (step, images u8[B,H,W,C], targets f32[B,K])
    -> both after the device transforms. trained_on: what is written of both above the grid. seed:
    which examples, and how they are augmented. Raises ConfigError for a split that is not there,
    DataError for an example that cannot be read.
    """
    sample = _sample(datasets.split(source, split), rows, seed)
    originals = [(batch["image"][0], batch["label"][0]) for batch in eval_batches(
        sample, [], batch_size=1, rows=slice(0, 1), channels=source.channels,
        classes=len(source.classes))]
    augmented = _augmented(source, sample, transforms, on_device, columns, seed)
    title = f"{source.name}, {split}, {sample.size} of {datasets.size(source, split):,} examples"
    return _draw(title, f"originals, and as trained on: {trained_on}", originals, augmented,
                 [sample.where(i) for i in range(sample.size)], source.classes)


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
    return b""  # as training, too, reads a record that is not there


def _augmented(source: Source, sample: Lookup, transforms: Sequence[Callable],
               on_device: Callable, columns: int, seed: int) -> list:
    """`columns` times (images u8[R,H,W,C], targets f32[R,K]), the rows in the sample's order."""
    batches = train_batches(
        sample, transforms, batch_size=sample.size, seed=seed, start_step=0,
        rows=slice(0, sample.size), channels=source.channels, classes=len(source.classes))
    found = []
    for step, batch in zip(range(columns), batches, strict=False):
        order = np.argsort(batch["id"])  # a batch is an epoch of the sample
        label = batch["label"][order]
        targets = label if label.ndim == 2 else np.eye(len(source.classes), dtype=np.float32)[label]
        found.append(on_device(step, batch["image"][order], targets))
    return found


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
    """Puts the image in the middle of its cell: enlarged by a whole factor, or shrunk."""
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
    """The text, cut to a width in pixels, in ASCII: Pillow's own font has nothing else."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    text = printable(plain).encode("ascii", "backslashreplace").decode()
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
