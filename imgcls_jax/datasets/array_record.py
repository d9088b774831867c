"""ArrayRecord files of tf.train.Example, by a glob for each split; any record by its index."""

import functools
from typing import Literal

from imgcls_jax.datasets import DATASETS, _classes, _records
from imgcls_jax.types import Lookup, Source


@DATASETS.register()
def array_record(*, files: str | dict, classes: int | str | tuple[str, ...],
                 image_key: str = "image/encoded",
                 label_key: str = "image/class/label", label_offset: int = 0,
                 kind: Literal["multiclass", "multilabel"] = "multiclass",
                 channels: int = 3) -> Source:
    """Arguments as for `tfrecord`. Raises DataError for a file that is missing or not whole, and
    EnvironmentFailure without the package array_record."""
    names = _classes.names(classes)
    files = _records.find_all(files)

    def open_split(name: str) -> Lookup:
        raw = _records.array_records(files[name], _records.as_record)
        parse = _records.parser(functools.partial(_records.first_of, raw), files[name][0],
                                image_key=image_key, label_key=label_key, classes=len(names),
                                multilabel=kind == "multilabel", offset=label_offset)
        return _records.array_records(files[name], parse)

    return Source(name="array_record", classes=names,
                  sizes={split: sum(map(_records.array_record_count, paths))
                         for split, paths in files.items()},
                  open=open_split, channels=channels, kind=kind)
