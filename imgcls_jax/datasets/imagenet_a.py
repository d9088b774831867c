"""ImageNet-A: natural images that fooled ResNet-50 (arXiv 1907.07174)."""

from imgcls_jax.datasets import DATASETS, _imagenet, _published
from imgcls_jax.types import Source


@DATASETS.register()
def imagenet_a(*, data_dir: str = "", channels: int = 3) -> Source:
    """Split `test`, with 200 of the 1,000 ImageNet classes; Source.subset holds their numbers.

    data_dir: a folder with imagenet-a/nXXXXXXXX/*.jpg or imagenet-a.tar, or prepared by TFDS.
    """
    subset = _imagenet.numbers(_published.names("imagenet_a"))
    return _imagenet.test_set("imagenet_a", 7_500, data_dir, channels, "imagenet-a",
                              "imagenet-a.tar", tfds="imagenet_a", subset=subset)
