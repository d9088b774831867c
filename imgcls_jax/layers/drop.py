"""Stochastic depth."""

import flax.linen as nn


class DropPath(nn.Module):
    """Drops the whole branch of an example with probability `rate` in training (arXiv 1603.09382).

    f[B,...] -> f[B,...]; what stays is scaled by 1 / (1 - rate). Draws from the stream "dropout".
    """

    rate: float

    @nn.compact
    def __call__(self, x, train: bool = False):
        return nn.Dropout(self.rate, tuple(range(1, x.ndim)), deterministic=not train)(x)
