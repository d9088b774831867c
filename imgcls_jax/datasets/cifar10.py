"""CIFAR-10 (Krizhevsky 2009): 32 x 32 photographs of 10 classes."""

from imgcls_jax.datasets import DATASETS, _cifar
from imgcls_jax.types import Source


@DATASETS.register()
def cifar10(*, data_dir: str = "", channels: int = 3) -> Source:
    """Splits `train` of 50,000 and `test` of 10,000.

    data_dir: what TFDS has prepared, or a folder with cifar-10-binary.tar.gz, unpacked or not.
    """
    return _cifar.source(
        "cifar10", data_dir=data_dir, channels=channels, folder="cifar-10-batches-bin",
        archive="cifar-10-binary.tar.gz", label_bytes=1,
        parts={"train": tuple(f"data_batch_{part}.bin" for part in range(1, 6)),
               "test": ("test_batch.bin",)})
