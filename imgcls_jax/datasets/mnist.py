"""MNIST: 28 x 28 handwritten digits (LeCun et al. 1998)."""

from imgcls_jax.datasets import DATASETS, _idx
from imgcls_jax.types import Source


@DATASETS.register()
def mnist(*, data_dir: str = "", channels: int = 1) -> Source:
    """Splits `train` of 60,000 and `test` of 10,000.

    data_dir: what TFDS has prepared, or the folder with the four files, in MNIST/raw or not.
    """
    return _idx.source("mnist", data_dir=data_dir, channels=channels, homes=("MNIST/raw",))
