"""What a dataset holds, and every fault of it, by path."""

import dataclasses
import hashlib
import io
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from imgcls_jax import datasets
from imgcls_jax.data.curation import examples, figures
from imgcls_jax.data.curation.digests import Digests
from imgcls_jax.data.curation.progress import Progress
from imgcls_jax.data.decoding import pillow
from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.types import Source

END_MARKS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
EXIF_ORIENTATION = 0x0112
REPAIR = "repair or remove it"


class Findings:
    """Errors, with which training would fail, and notes. Each has a what, a where and often a fix
    and a split."""

    def __init__(self):
        self.errors, self.notes = [], []

    def error(self, what: str, where: str, fix: str = "", split: str = ""):
        self._add(self.errors, what, where, fix, split)

    def note(self, what: str, where: str, fix: str = "", split: str = ""):
        self._add(self.notes, what, where, fix, split)

    @staticmethod
    def _add(rows, what, where, fix, split):
        row = {"what": what, "where": where, "fix": fix, "split": split}
        rows.append({key: value for key, value in row.items() if value})


@dataclasses.dataclass
class Look:
    """What is known of one good example. digest: SHA-256 of its bytes; pixels: 16 bytes of a digest
    of its pixels; each empty where it is not known."""
    label: np.ndarray
    digest: bytes
    pixels: bytes
    size: tuple[int, int]  # width, height
    kind: str  # "JPEG RGB"
    rotated: bool = False  # by its EXIF orientation
    notes: tuple[str, ...] = ()


def check(make: Callable[[], Source], *, name: str, place: str = "",
          needed: Mapping[str, str] | None = None, splits: Sequence[str] | None = None,
          decode: bool = True, write_digests: bool = False, threads: int = 1) -> dict:
    """The figures and faults of a dataset, as JSON would have them; "ok" without faults.

    make: () -> the dataset; what is wrong with it becomes a fault. name: what it is called in a
    config. place: the folder, archive or file it is read from, if it is one. needed: key of
    config.data -> split that must be there with examples. splits: which are looked at; all by
    default. decode: whether images are decoded, or only their headers read. write_digests: see
    digests.py. Raises ConfigError for a split or digests that cannot be.
    """
    findings = Findings()
    facts = {"data": name, "where": place}
    made, whats = _made(make, place, findings)
    if made is None:
        return {**facts, "found": figures.tree(place), "ok": False,
                "errors": findings.errors, "notes": []}
    if name == "folder":
        facts["layout"] = "CLASS/*, split by a seed" if made.files else "SPLIT/CLASS/*"
    _check_splits(made, needed or {}, name == "folder", place, findings)
    names = examples.splits(made, splits)
    digests = Digests(place, write_digests, findings)
    tallies = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of images a little below the limit of pixels
        for split in names:
            tallies[split] = _scan(made, split, findings, digests, decode, threads)
    digests.finish(complete=set(names) == set(made.sizes))
    _check_classes(made, tallies, findings, whats)
    return {**facts, "data": made.name, "classes": len(made.classes),
            "splits": {split: tally.figures(made.classes) for split, tally in tallies.items()},
            "images": figures.of_images(list(tallies.values())), "decoded": decode,
            "duplicates": figures.duplicates(tallies), "ok": not findings.errors,
            "errors": findings.errors, "notes": findings.notes}


def _made(make: Callable[[], Source], place: str,
          findings: Findings) -> tuple[Source | None, str]:
    """The dataset without what is at fault, if it can be made; what was said of the faults."""
    made = None
    with datasets.collecting() as faults:
        try:
            made = make()
        except (DataError, OSError) as error:
            faults.append(_fault(error, place))
    for fault in faults:
        add = findings.note if isinstance(fault, datasets.LeftOut) else findings.error
        add(fault.what, fault.where, fault.fix)
    return made, "\n".join(fault.what for fault in faults)


def _fault(error: DataError | OSError, place: str) -> DataError:
    if isinstance(error, DataError):
        return error
    return DataError(error.strerror or str(error), where=os.fsdecode(error.filename or place),
                     fix=REPAIR)


def _check_splits(made: Source, needed: Mapping[str, str], folder: bool, place: str,
                  findings: Findings):
    """Those that are trained and evaluated on must be there, with examples."""
    fix = ("name a part of what there is, such as --config.data.train='train[:90%]' "
           "--config.data.eval='train[90%:]'")
    if folder:
        from imgcls_jax.datasets.folder import LAYOUT

        fix = f"lay the images out as {LAYOUT}, or {fix}"
    for key, name in needed.items():
        try:
            datasets.size(made, name)
        except ConfigError as error:
            there = made.sizes.get(name.partition("[")[0])  # then it is the part that is wrong
            findings.error(f"{error.what}, which config.data.{key} names; there are "
                           f"{sorted(made.sizes)}", place or made.name,
                           error.fix if there else fix)


def _scan(made: Source, name: str, findings: Findings, digests: Digests, decode: bool,
          threads: int) -> figures.Tally:
    """Looks at every example of a split."""
    tally = figures.Tally(None, len(made.classes))
    decoder = examples.decoder() if decode else None

    def work(index, image, label):
        label = _checked(label, made)
        where = tally.split.where(index)
        return _look_at_bytes(image, label, where, decoder) if isinstance(image, bytes) else (
            _look_at_array(image, label))

    try:
        split = tally.split = made.open(name)
        if split.size != made.sizes[name]:
            findings.error(f"the split has {split.size:,} examples, its metadata says "
                           f"{made.sizes[name]:,}", made.name, "prepare the dataset again", name)
        progress = Progress(name, split.size)
        for index, look in examples.each(split, work, threads=threads):
            progress.add(1)
            if isinstance(look, DataError):
                tally.bad += 1
                findings.error(look.what, look.where, look.fix or REPAIR, name)
                continue
            tally.add(index, look)
            where = split.where(index)
            for note in look.notes:
                findings.note(note, where, split=name)
            if look.digest:
                digests.see(where, look.digest, name)
    except (DataError, OSError) as error:  # of the split as a whole
        fault = _fault(error, made.name)
        findings.error(fault.what, fault.where, fault.fix, name)
    return tally


def _checked(label, made: Source) -> np.ndarray:
    """The label; DataError unless it is a class, or one number of 0 to 1 for each."""
    label, classes = np.asarray(label), len(made.classes)
    if label.ndim == 0:
        if label.dtype.kind not in "iu":
            raise DataError(f"label {label[()]!r} is not an integer")
        if not 0 <= label < classes:
            raise DataError(f"label {label} is not one of 0 to {classes - 1}")
    elif label.shape != (classes,):
        raise DataError(f"the label has the shape {label.shape}, but there are {classes} classes")
    elif not ((label >= 0) & (label <= 1)).all():  # nor is NaN
        raise DataError("the label has numbers that are not between 0 and 1")
    return label


def _look_at_array(image: np.ndarray, label) -> Look:
    if image.dtype != np.uint8 or image.ndim != 3 or 0 in image.shape:
        raise DataError(f"the image is {image.dtype}{list(image.shape)}, not uint8[H,W,C]")
    pixels = _digest(image)
    return Look(label, b"", pixels, image.shape[1::-1], f"array {image.shape[-1]} channels")


def _look_at_bytes(image: bytes, label, where: str, decode: Callable | None) -> Look:
    """Reads the header, and with `decode`, an examples.decoder(), all of it."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image), formats=pillow.FORMATS) as header:
            form, mode, size = header.format, header.mode, header.size
            pillow.check_size(header, image)
            rotated = _is_rotated(header)
    except DataError:
        raise
    except Exception as error:
        pillow.decode(image)  # its message says more
        raise DataError(f"the image is damaged: {error}") from error
    decoded = decode(image) if decode else None
    form = {"MPO": "JPEG"}.get(form, form)
    notes = tuple(filter(None, (
        _odd_suffix(where, form), _odd_name(where),
        "" if decode else _open_end(image, form))))
    return Look(label, hashlib.sha256(image).digest(), b"" if decoded is None else
                _digest(decoded), size, f"{form} {mode}", rotated, notes)


def _is_rotated(header) -> bool:
    try:
        return header.getexif().get(EXIF_ORIENTATION, 1) not in (0, 1)
    except Exception:  # damaged, which does not matter: training does not read it
        return False


def _digest(pixels: np.ndarray) -> bytes:
    made = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    made.update(np.ascontiguousarray(pixels))
    return made.digest()


def _odd_suffix(where: str, form: str) -> str:
    suffix = os.path.splitext(where)[1].lower()
    called = next((other for other, known in pillow.SUFFIXES.items() if suffix in known), form)
    return f"{form} by its content, {suffix} by its name" if called != form else ""


def _odd_name(where: str) -> str:
    if not where.isprintable():
        return "a name with control characters, shown as escapes"
    return "a name that is not UTF-8, shown with escapes" if re.search(
        r"\\x[89a-f][0-9a-f]", where) else ""


def _open_end(image: bytes, form: str) -> str:
    """What is cut off has no end mark; after the mark there may be a little of anything."""
    mark = END_MARKS.get(form, b"")
    return "" if mark in image[-4096:] else "without an end mark: it may be cut off"


def _check_classes(made: Source, tallies: dict, findings: Findings, whats: str):
    train = tallies.get("train")
    if train is None or train.split is None:  # it was not opened: an error says why
        return
    others = sum((tally.counts for name, tally in tallies.items() if name != "train"),
                 np.zeros_like(train.counts))
    for name, count, elsewhere in zip(made.classes, train.counts, others, strict=True):
        if f"class {name!r} has no images" in whats:
            continue
        if not count:
            where = "in train, only in other splits" if elsewhere else "in any split"
            findings.note(f"has no examples {where}", f"class {name!r}")
        elif count == 1:
            findings.note("has one example to train on", f"class {name!r}")
