"""Fashion-MNIST: 28 x 28 images of clothing (arXiv 1708.07747)."""

from imgcls_jax.datasets import DATASETS, _idx
from imgcls_jax.types import Source


@DATASETS.register()
def fashion_mnist(*, data_dir: str = "", channels: int = 1) -> Source:
    """Splits `train` of 60,000 and `test` of 10,000.

    data_dir: what TFDS has prepared, or the folder with the four files, in FashionMNIST/raw or not;
    they have the same names as those of MNIST.
    """
    return _idx.source("fashion_mnist", data_dir=data_dir, channels=channels,
                       homes=("FashionMNIST/raw",))
