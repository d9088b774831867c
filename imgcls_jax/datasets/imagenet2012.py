"""ImageNet (ILSVRC 2012), as TFDS prepares it; its facts are known without the data."""

import importlib.util
from pathlib import Path

from imgcls_jax.datasets import DATASETS
from imgcls_jax.types import Lookup, Shards, Source


@DATASETS.register()
def imagenet2012(*, data_dir: str = "", channels: int = 3) -> Source:
    """1,000 classes in the order of their WordNet ids (arXiv 1409.0575), which are their names.

    data_dir: where TFDS has prepared it. Raises DataError, when a split is opened, if it has not.
    """
    def open_split(name: str) -> Lookup | Shards:
        prepared = DATASETS.get("tfds")(dataset="imagenet2012", data_dir=data_dir)
        return prepared.open(name)

    return Source(name="imagenet2012", classes=_class_names(),
                  sizes={"train": 1_281_167, "validation": 50_000}, open=open_split,
                  channels=channels)


def _class_names() -> tuple[str, ...]:
    """Those in the files of TFDS, which need not be imported for it; numbers without TFDS."""
    package = importlib.util.find_spec("tensorflow_datasets")
    if package is None:
        return tuple(map(str, range(1000)))
    labels = Path(package.submodule_search_locations[0], "datasets", "imagenet2012", "labels.txt")
    return tuple(labels.read_text().split())
