"""TFRecord files of tf.train.Example, by a glob for each split."""

import functools
from typing import Literal

from imgcls_jax.datasets import DATASETS, _classes, _records
from imgcls_jax.types import Lookup, Shards, Source


@DATASETS.register()
def tfrecord(*, files: str | dict, classes: int | str | tuple[str, ...],
             image_key: str = "image/encoded",
             label_key: str = "image/class/label", label_offset: int = 0,
             kind: Literal["multiclass", "multilabel"] = "multiclass", by_index: bool = False,
             channels: int = 3) -> Source:
    """files: a glob for the files of `train`, or one per split, dict(train=..., validation=...).
    classes: how many, their names, or a file with one name per line. Labels are int64, from which
    label_offset is subtracted (1 if 0 is "background"), or, if multilabel, int64 numbers or f32[K].

    Files are read sequentially and shuffled within a window; by_index reads records by index, which
    shuffles perfectly and needs a local disk. Records are counted when first opened, by their
    lengths alone; the counts are kept in $IMGCLS_DATA_CACHE. Raises DataError for a shard that is
    missing by its name `-of-N`, has no records or ends within one. A shard that was cut off between
    two records cannot be detected; `prepared` can, as it knows how many there were.
    """
    names = _classes.names(classes)
    files = _records.find_all(files)
    indices = {split: _records.index(paths) for split, paths in files.items()}

    def open_split(name: str) -> Lookup | Shards:
        counted = [(path, len(rows)) for path, rows in zip(files[name], indices[name], strict=True)]
        raw = _records.stream(counted, _records.as_record)
        parse = _records.parser(functools.partial(_records.first_of, raw), files[name][0],
                                image_key=image_key, label_key=label_key, classes=len(names),
                                multilabel=kind == "multilabel", offset=label_offset)
        return (_records.by_index(files[name], parse) if by_index
                else _records.stream(counted, parse))

    return Source(name="tfrecord", classes=names,
                  sizes={split: sum(map(len, found)) for split, found in indices.items()},
                  open=open_split, channels=channels, kind=kind)
