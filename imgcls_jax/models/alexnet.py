"""AlexNet: torchvision's single tower, and the original with two groups."""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax

from imgcls_jax.layers.conv import Conv
from imgcls_jax.layers.pool import adaptive_avg_pool, max_pool
from imgcls_jax.models import MODELS
from imgcls_jax.registry import BelowOne
from imgcls_jax.types import Layout

PAPER = "NeurIPS 2012, ImageNet classification with deep convolutional neural networks"
TOWER = "arXiv 1404.5997"
CELLS = 6  # the map is 6x6 before the first dense layer
TORCHVISION = Layout("torch", (  # torchvision/models/alexnet.py
    (r"conv1", r"features.0"), (r"conv2", r"features.3"), (r"conv3", r"features.6"),
    (r"conv4", r"features.8"), (r"conv5", r"features.10"),
    (r"fc1", r"classifier.1"), (r"fc2", r"classifier.4"), (r"head", r"classifier.6")))
# (k, alpha) of local_response_norm. Caffe divides its alpha of 1e-4 by the five channels.
RESPONSE = {"paper": (2.0, 1e-4), "caffe": (1.0, 2e-5)}


def local_response_norm(x, *, size: int = 5, k: float = 2.0, alpha: float = 1e-4,
                        beta: float = 0.75):
    """Divides by (k + alpha * the sum of squares over `size` neighbouring channels) ** beta.

    f[B,H,W,C] -> f[B,H,W,C], computed in f32 at least (section 3.3 of the paper). Channels outside
    the first and the last count as 0.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    side = size // 2
    total = lax.reduce_window(wide * wide, np.array(0, wide.dtype), lax.add, (1, 1, 1, size),
                              (1, 1, 1, 1), ((0, 0), (0, 0), (0, 0), (side, side)))
    return (wide / (k + alpha * total) ** beta).astype(x.dtype)


class AlexNet(nn.Module):
    """f[B,H,W,C] -> logits f32[B,num_classes], or what the head receives f[B,hidden] where
    num_classes is 0.

    widths: channels of the five convolutions. original: two groups in the second, fourth and
      fifth, no padding in the first, dropout after each hidden layer instead of before it, and
      the paper's initial values; otherwise as torchvision.
    response: (k, alpha) of the normalisation after the first two convolutions, or None.
    dropout: share of the units dropped.

    ConfigError if the image is smaller than 63 pixels (original: 67).
    """

    num_classes: int
    widths: tuple[int, ...]
    original: bool = False
    response: tuple[float, float] | None = None
    hidden: int = 4096
    dropout: float = 0.5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = self._conv(x, 1, 11, stride=4, padding=0 if self.original else 2)
        x = max_pool(self._normalise(x), 3, 2)
        x = self._conv(x, 2, 5, groups=2)
        x = max_pool(self._normalise(x), 3, 2)
        x = self._conv(x, 3, 3)
        x = self._conv(x, 4, 3, groups=2)
        x = max_pool(self._conv(x, 5, 3, groups=2), 3, 2)
        x = adaptive_avg_pool(x, CELLS)
        # Channels first, as torch flattens: published weights load without a permutation.
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        wide = jnp.promote_types(self.dtype, jnp.float32)
        for i in (1, 2):
            if not self.original:
                x = self._drop(x, i, train)
            x = nn.Dense(self.hidden, dtype=self.dtype, param_dtype=wide, name=f"fc{i}",
                         **self._init(0.005, bias=0.1))(x)
            x = nn.relu(x)
            if self.original:
                x = self._drop(x, i, train)
        x = x.astype(wide)
        if not self.num_classes:
            return x
        return nn.Dense(self.num_classes, dtype=wide, param_dtype=wide, name="head",
                        **self._init(0.01))(x)

    def _conv(self, x, i: int, size: int, *, stride: int = 1, padding: int | None = None,
              groups: int = 1):
        edges = None if padding is None else (padding, padding)
        x = Conv(self.widths[i - 1], (size, size), stride, edges,
                 groups=groups if self.original else 1, use_bias=True, dtype=self.dtype,
                 name=f"conv{i}", **self._init(0.01, bias=0.1 * (groups == 2)))(x)
        return nn.relu(x)

    def _normalise(self, x):
        if self.response is None:
            return x
        k, alpha = self.response
        return local_response_norm(x, k=k, alpha=alpha)

    def _drop(self, x, i: int, train: bool):
        return nn.Dropout(self.dropout, deterministic=not train, name=f"dropout{i}")(x)

    def _init(self, std: float, bias: float = 0.0) -> dict[str, Callable]:
        if not self.original:  # torch's initial range: +-1/sqrt(inputs)
            return {"kernel_init": nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")}
        return {"kernel_init": nn.initializers.normal(std),
                "bias_init": nn.initializers.constant(bias)}


@MODELS.register(params=61_100_840, image_size=224, head="head", paper=TOWER,
                 layouts={"torchvision": TORCHVISION})
def alexnet(num_classes: int, *, dropout: BelowOne = 0.5, dtype: str = "float32") -> nn.Module:
    """The later single tower, without groups and normalisation."""
    return AlexNet(num_classes, (64, 192, 384, 256, 256), dropout=dropout, dtype=dtype)


# Images are 0 to 255 minus the mean, not divided: the initial values are made for that.
@MODELS.register(params=60_965_224, image_size=227, head="head", paper=PAPER,
                 mean=(123 / 255, 117 / 255, 104 / 255), std=(1 / 255,) * 3)
def alexnet_caffe(num_classes: int, *, response: Literal["caffe", "paper"] = "caffe",
                  dropout: BelowOne = 0.5, dtype: str = "float32") -> nn.Module:
    """The original on one device, with the initial biases and, by default, the response
    normalisation of Caffe's bvlc_alexnet."""
    return AlexNet(num_classes, (96, 256, 384, 384, 256), True, RESPONSE[response],
                   dropout=dropout, dtype=dtype)
