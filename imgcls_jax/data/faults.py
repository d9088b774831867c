"""Examples that cannot be read: which one it was and why, and which one replaces it.

tf.data's own errors do not say, and its `ignore_errors` loses the rest of a record file.
"""

import os
import re
import tempfile
from collections.abc import Callable, Iterable

import numpy as np

from imgcls_jax.data import salvage
from imgcls_jax.data.decoding import pillow
from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.errors import ConfigError, DataError
from imgcls_jax.types import Lookup, Shards

LABELS = "labels must be"  # how a message of the check of the labels begins
COPY_AGAIN = "copy the file again, or prepare the dataset again"
REPAIR = ("repair or remove it, or set config.data.on_error=skip; imgcls data check lists all that "
          "cannot be read")


class Faults:
    """The examples of one split that cannot be read.

    With on_error="skip" each is replaced by the next example that can be read, the same on any
    number of hosts, up to max_bad of them and max_bad_fraction of the split (at least one);
    report: called once for each with {"split", "id", "where", "label", "reason"}.
    """

    def __init__(self, split: Lookup | Shards, *, name: str = "", on_error: str = "fail",
                 max_bad: int = 100, max_bad_fraction: float = 0.001,
                 report: Callable[[dict], None] = lambda row: None):
        if on_error not in ("fail", "skip"):
            raise ConfigError(f"on_error={on_error!r} is unknown", where="config.data.on_error",
                              fix="use 'fail' or 'skip'")
        self.split, self.name, self.skip, self._report = split, name, on_error == "skip", report
        self._budget = min(max_bad, int(np.ceil(max_bad_fraction * split.size)))
        self._said = f"max_bad={max_bad}, max_bad_fraction={max_bad_fraction:g}"
        self.stand_ins: dict[int, int] = {}  # id -> the id that is read instead
        self._copies: dict[str, str] = {}  # record file -> one without its damaged records
        self._folder = None

    def path(self, path: str) -> str:
        """The path that the records of a file are read from."""
        return self._copies.get(path, path)

    def replace(self, ids: np.ndarray) -> np.ndarray:
        """i64[n] ids -> those that are read instead."""
        if self.stand_ins:
            ids = np.array([self.stand_ins.get(int(i), int(i)) for i in ids], np.int64)
        return ids

    def meet(self, rows: Callable[[], Iterable], example: Callable, error: Exception):
        """Finds what made a batch fail. Returns if that may be skipped; DataError otherwise.

        rows: () -> (index or undecoded record, epoch, id) of the batch, which `example` turns into
        a row of the batch.
        """
        tf = tensorflow()
        known, shapes = (len(self.stand_ins), len(self._copies)), {}
        try:
            for row in rows():
                number = int(row[2])
                try:
                    shapes.setdefault(tuple(example(*row)["image"].shape), number)
                except Exception as reason:  # read, parse or a transform may raise anything
                    self._note(number, *self._reason(row[0], reason))
        except tf.errors.OpError as reason:
            self._repair(reason)
        while unserved := [n for n, other in self.stand_ins.items() if other == n]:
            self.stand_ins[unserved[0]] = self._readable(unserved[0], example)
        if len(shapes) > 1:
            (one, first), (other, second) = list(shapes.items())[:2]
            raise DataError(f"images of {one} and {other} do not fit into one batch",
                            where=f"{self.split.where(first)}; {self.split.where(second)}",
                            fix="add a transform that gives all images one size, such as resize")
        if known == (len(self.stand_ins), len(self._copies)):
            raise DataError(_say(error), where="a batch each of whose examples can be read alone",
                            fix="run the same line again")

    def raw(self, number: int):
        """The index, or the undecoded record, of an example."""
        if isinstance(self.split, Lookup):
            return number
        path, place = self.split.place(number)
        records = self.split.records(os.fsencode(self.path(path)))
        return next(iter(records.skip(place).take(1)), np.bytes_(b""))

    def _note(self, number: int, what: str, label, fix: str = REPAIR):
        where = self.split.where(number)
        if not self.skip:
            raise DataError(what, where=where, fix=fix)
        if number in self.stand_ins:
            return
        self.stand_ins[number] = number  # until a replacement is found
        if len(self.stand_ins) > self._budget:
            raise DataError(f"{len(self.stand_ins)} examples of {self.split.size:,} cannot be read,"
                            f" more than the config allows ({self._said}); the last one: {what}",
                            where=where, fix="look at them with imgcls data check, or raise "
                                             "config.data.max_bad and max_bad_fraction")
        self._report({"split": self.name, "id": number, "where": where, "label": label,
                      "reason": what})

    def _readable(self, number: int, example: Callable) -> int:
        """The next example that can be read, independent of the order the bad ones were met in."""
        for step in range(1, self.split.size):
            other = (number + step) % self.split.size
            if other in self.stand_ins:
                continue
            raw = self.raw(other)
            try:
                example(raw, np.int64(0), np.int64(other))
            except Exception as reason:
                self._note(other, *self._reason(raw, reason))
                continue
            return other
        raise DataError("no example of the split can be read", where=self.split.where(number),
                        fix="look at the data with imgcls data check")

    def _reason(self, raw, reason: Exception) -> tuple:
        """(what, label, fix) of an example that raised `reason`."""
        tf = tensorflow()
        if isinstance(self.split, Shards) and not np.asarray(raw).item():
            return "the record file holds fewer records than its metadata says", None, COPY_AGAIN
        what, label = _say(reason), None
        try:  # TensorFlow seldom says what is wrong with an image; Pillow does
            row = (self.split.read(raw) if isinstance(self.split, Lookup) else
                   self.split.parse(raw))
            label = row["label"].numpy().tolist()
            if what.startswith(LABELS):
                what = f"label {str(label)[:60]}: {what}"
            elif row["image"].dtype == tf.string:
                pillow.decode(row["image"].numpy())
        except DataError as error:
            what = error.what
        except Exception as error:
            what = _say(error)
        return what, label, REPAIR

    def _repair(self, error: Exception):
        """Finds the record file that cannot be read to its end and drops its bad records."""
        tf = tensorflow()
        first = 0
        for path, begin, count in self.split.files:
            try:
                for _ in self.split.records(os.fsencode(self.path(path))):
                    pass
            except tf.errors.OpError as reason:
                damaged = salvage.gaps(path) if os.path.isfile(path) else None
                if not damaged:  # another kind of file, or none
                    raise DataError(_say(reason), where=path, fix=COPY_AGAIN) from reason
                for place, _, _ in damaged:
                    if begin <= place < begin + count:
                        self._note(first + place - begin, "the record is damaged", None, COPY_AGAIN)
                self._folder = self._folder or tempfile.TemporaryDirectory(prefix="imgcls_records_")
                copy = os.path.join(self._folder.name, f"{len(self._copies)}")
                salvage.write_without(path, damaged, copy)
                self._copies[path] = copy
                return
            first += count
        raise DataError(_say(error), where="one of the record files", fix=COPY_AGAIN) from error


def _say(error: Exception) -> str:
    """The first line of a TensorFlow error, without the names of graph nodes."""
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    line = text.strip().split("\n")[0]
    return re.sub(r"\{\{.*?\}\}|\[Op:.*|^\w*Error: (error: )?", "", line).strip()
