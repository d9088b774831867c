"""ImageNet-R: renditions, such as paintings and toys (arXiv 2006.16241)."""

from imgcls_jax.datasets import DATASETS, _imagenet, _published
from imgcls_jax.types import Source


@DATASETS.register()
def imagenet_r(*, data_dir: str = "", channels: int = 3) -> Source:
    """Split `test`, with 200 of the 1,000 ImageNet classes; Source.subset holds their numbers.

    data_dir: a folder with imagenet-r/nXXXXXXXX/*.jpg or imagenet-r.tar, or prepared by TFDS.
    """
    subset = _imagenet.numbers(_published.names("imagenet_r"))
    return _imagenet.test_set("imagenet_r", 30_000, data_dir, channels, "imagenet-r",
                              "imagenet-r.tar", tfds="imagenet_r", subset=subset)
