"""CIFAR-100 (Krizhevsky 2009): 32 x 32 photographs of 100 classes."""

from imgcls_jax.datasets import DATASETS, _cifar
from imgcls_jax.types import Source


@DATASETS.register()
def cifar100(*, data_dir: str = "", channels: int = 3) -> Source:
    """Splits `train` of 50,000 and `test` of 10,000, with the 100 fine labels.

    data_dir: what TFDS has prepared, or a folder with cifar-100-binary.tar.gz, unpacked or not.
    """
    return _cifar.source(
        "cifar100", data_dir=data_dir, channels=channels, folder="cifar-100-binary",
        archive="cifar-100-binary.tar.gz", label_bytes=2,
        parts={"train": ("train.bin",), "test": ("test.bin",)})
