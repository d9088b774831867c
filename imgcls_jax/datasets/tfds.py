"""Any image-classification dataset of TensorFlow Datasets, by name."""

import functools
import os
from collections.abc import Callable

import numpy as np

from imgcls_jax.data.decoding.tensorflow import tensorflow
from imgcls_jax.datasets import DATASETS, _records, fault
from imgcls_jax.errors import DataError
from imgcls_jax.registry import near
from imgcls_jax.types import Lookup, Shards, Source


@DATASETS.register()
def tfds(*, dataset: str, data_dir: str = "", label: str = "", channels: int = 3) -> Source:
    """dataset: a TFDS name, as "cifar10" or "cifar100:3.0.2", prepared in data_dir (default: as
    TFDS). label: which feature to learn, if there are several.

    TFRecord files are read sequentially, ArrayRecord files by index; images come undecoded. Raises
    DataError if the dataset is not prepared, or does not have one image and one class label.
    """
    builder = _builder(dataset, data_dir)
    info = builder.info
    if not info.splits:
        command = f"tfds build {dataset}" + (f" --data_dir={data_dir}" if data_dir else "")
        raise DataError(f"the TFDS dataset {dataset!r} is not prepared",
                        where=str(builder.data_path), fix=f"prepare it: {command}")
    image_key, label_key = _keys(info, label)
    height, width = info.features[image_key].shape[:2]

    def open_split(name: str) -> Lookup | Shards:
        parse = _parser(info.features, image_key, label_key)
        if info.file_format.value == "array_record":
            return _array_records(builder, name, parse)
        split = info.splits[name]
        files = list(zip(map(str, split.filepaths), split.shard_lengths, strict=True))
        if info.file_format.value == "tfrecord":
            _check(files, split.num_bytes)
        return Shards(tuple((path, 0, count) for path, count in files),
                      _file_reader(info.file_format), parse)

    return Source(name=dataset, classes=tuple(info.features[label_key].names),
                  sizes={name: split.num_examples for name, split in info.splits.items()},
                  open=open_split, channels=channels,
                  image_size=(height, width) if height and width else None)


def _builder(dataset: str, data_dir: str):
    import tensorflow_datasets

    try:
        return tensorflow_datasets.builder(dataset, data_dir=data_dir or None)
    except tensorflow_datasets.core.DatasetNotFoundError as error:
        raise DataError(f"TFDS has no dataset {dataset!r}", where=data_dir or "tensorflow_datasets",
                        fix=near(dataset, tensorflow_datasets.list_builders())) from error
    except (AssertionError, ValueError, OSError) as error:
        raise DataError(f"TFDS cannot open {dataset!r}: {str(error).splitlines()[0]}",
                        where=data_dir or "the default data_dir of TFDS",
                        fix="name a version that is prepared there, or none") from error


def _check(files: list[tuple[str, int]], payload: int):
    """Checks that the TFRecord files exist, with as many records as the metadata says.

    Their records are counted only if their total size is not that of `payload`.
    """
    if any("://" in path for path, _ in files):
        return
    for path, count in files:
        if not os.path.exists(path):
            fault(DataError(f"the record file of {count:,} examples is missing", where=path,
                            fix=_records.COPY_AGAIN))
    there = [(path, count) for path, count in files if os.path.exists(path)]
    around = (_records.HEADER + _records.FOOTER) * sum(count for _, count in files)
    if payload and sum(os.path.getsize(path) for path, _ in there) != payload + around:
        for path, count in there:
            found = _records.whole(path)
            if found != count:
                fault(DataError(f"found {found:,} whole records, the metadata says {count:,}",
                                where=path, fix=_records.COPY_AGAIN))


def _keys(info, label: str) -> tuple[str, str]:
    """The names of the image and of the label among the features."""
    import tensorflow_datasets

    features = tensorflow_datasets.features
    images = [key for key, feature in info.features.items()
              if isinstance(feature, features.Image)
              or (isinstance(feature, features.Tensor) and len(feature.shape) == 3
                  and np.dtype(feature.dtype) == np.uint8)]
    labels = [key for key, feature in info.features.items()
              if isinstance(feature, features.ClassLabel)]
    image_key, label_key = images[0] if images else None, labels[0] if labels else None
    if isinstance(info.supervised_keys, tuple) and len(info.supervised_keys) == 2:
        image_key = info.supervised_keys[0] if info.supervised_keys[0] in images else image_key
        label_key = info.supervised_keys[1] if info.supervised_keys[1] in labels else label_key
    if image_key is None or label_key is None or (label and label not in labels):
        raise DataError(f"the features {sorted(info.features)} hold the images {images} and the "
                        f"class labels {labels}", where=f"TFDS dataset {info.name!r}",
                        fix="use a dataset with an image and a class label; if there are several "
                            "labels, choose one with config.data.label")
    return image_key, label or label_key


def _parser(features, image_key: str, label_key: str) -> Callable:
    """(bytes[] tensor) -> dict(image, label), of these two features alone."""
    import tensorflow_datasets

    two = tensorflow_datasets.features.FeaturesDict(
        {key: features[key] for key in (image_key, label_key)})
    encoded = isinstance(features[image_key], tensorflow_datasets.features.Image)
    decoders = {image_key: tensorflow_datasets.decode.SkipDecoding()} if encoded else None

    def parse(record):
        example = two.deserialize_example(record, decoders=decoders)
        return {"image": example[image_key], "label": example[label_key]}

    return parse


def _file_reader(file_format) -> Callable:
    def records(path):
        from tensorflow_datasets.core import file_adapters

        return file_adapters.ADAPTER_FOR_FORMAT[file_format].make_tf_data(path)

    return records


def _array_records(builder, name: str, parse: Callable) -> Lookup:
    @functools.cache
    def source():
        return builder.as_data_source(split=name).data_source

    def read(index):
        tf = tensorflow()
        record = tf.numpy_function(lambda i: source()[int(i)], [index], tf.string)
        return parse(tf.ensure_shape(record, ()))

    return Lookup(builder.info.splits[name].num_examples, read,
                  lambda index: f"{builder.data_path}, {name} example {index}")
