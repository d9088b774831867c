"""ImageNet-Sketch: black and white drawings of the 1,000 classes (arXiv 1905.13549)."""

from imgcls_jax.datasets import DATASETS, _imagenet
from imgcls_jax.types import Source


@DATASETS.register()
def imagenet_sketch(*, data_dir: str = "", channels: int = 3) -> Source:
    """Split `test`.

    data_dir: a folder with sketch/nXXXXXXXX/*.JPEG or ImageNet-Sketch.zip, or prepared by TFDS.
    """
    return _imagenet.test_set("imagenet_sketch", 50_889, data_dir, channels, "sketch",
                              "imagenet-sketch", "ImageNet-Sketch.zip", tfds="imagenet_sketch")
