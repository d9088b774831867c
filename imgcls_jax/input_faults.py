"""Which example of a failed batch it was, and why: what tf.data's own errors do not say."""

import os
import re
from collections.abc import Callable, Iterable

from imgcls_jax.errors import DataError
from imgcls_jax.transforms import _pillow
from imgcls_jax.types import Lookup, Shards

LABELS = "labels must be"  # how the pipeline's check of the labels begins
ANEW = "copy the file anew or prepare the dataset again"


def find(split: Lookup | Shards, rows: Iterable, example: Callable, error: Exception) -> DataError:
    """Tries the rows of a failed batch one by one.

    rows: (index or undecoded record, epoch, id), which `example` makes a row of the batch of.
    """
    import tensorflow as tf

    shapes: dict[tuple, str] = {}
    try:
        for row in rows:
            where = split.where(int(row[2]))
            try:
                shapes.setdefault(tuple(example(*row)["image"].shape), where)
            except Exception as reason:  # whatever read, parse or a transform stumbles over
                return _fault(split, row[0], where, reason)
    except tf.errors.OpError as reason:
        return DataError(_say(reason), where=_damaged_file(split), fix=ANEW)
    if len(shapes) > 1:
        (one, first), (other, second) = list(shapes.items())[:2]
        return DataError(f"images of {one} and {other} cannot be in one batch",
                         where=f"{first}; {second}",
                         fix="add a transform that gives one size, such as resize")
    return DataError(_say(error), where="a batch whose examples can be read one by one",
                     fix="run the same line again")


def _fault(split, raw, where: str, reason: Exception) -> DataError:
    import tensorflow as tf

    if isinstance(split, Shards) and not raw.numpy():
        return DataError("the file holds fewer records than its metadata says", where=where,
                         fix=ANEW)
    what = _say(reason)
    try:  # TensorFlow seldom says what is wrong with an image; Pillow does
        row = split.read(raw) if isinstance(split, Lookup) else split.parse(raw)
        if what.startswith(LABELS):
            what = f"label {row['label'].numpy()}: {what}"
        elif row["image"].dtype == tf.string:
            _pillow.decode(row["image"].numpy())
    except DataError as error:
        what = error.what
    except Exception as error:
        what = _say(error)
    return DataError(what, where=where, fix="mend this example or take it out of the data")


def _damaged_file(split: Shards) -> str:
    import tensorflow as tf

    for path, _, _ in split.files:
        try:
            for _ in split.records(os.fsencode(path)):
                pass
        except tf.errors.OpError:
            return path
    return "one of the record files"


def _say(error: Exception) -> str:
    """The first line of a TensorFlow error, without the names of graph nodes."""
    text = getattr(error, "message", None) or str(error) or type(error).__name__
    return re.sub(r"\{\{.*?\}\}|\[Op:.*", "", text.strip().split("\n")[0]).strip()
