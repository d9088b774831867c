"""Which example stands at which place of training: a pure function of (seed, place).

Place p of an endless sequence is draw p % length of epoch p // length. A draw is an example and a
copy, the number of earlier draws of the same example in that epoch, so that each is augmented in
its own way.
"""

import functools
from collections.abc import Callable

import numpy as np

from imgcls_jax.errors import ConfigError
from imgcls_jax.registry import Registry

SAMPLERS = Registry("sampler")
IN_MEMORY = 2**24  # examples: up to so many an epoch's order is an array, above a cipher
ROUNDS = 8  # of the cipher; with four, neighbors are still correlated


def generator(*seeds: int) -> np.random.Generator:
    """numpy's random generator for a tuple of whole numbers of at least 0."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seeds)))


class Order:
    """The examples of one epoch after the other.

    size: of the split. repeats: each draw is made so many times in a row (repeated augmentation,
    arXiv 1901.09335), an epoch keeps `length` draws, and so has fewer examples. weights: f[size],
    how often each example comes in an epoch, on average; None is once.
    """

    def __init__(self, size: int, seed: int, *, repeats: int = 1, weights=None):
        self.size, self.seed, self.repeats = size, seed, repeats
        self.length, self.copies = size, repeats
        self._weights = weights
        if weights is not None:
            self.length = max(round(float(weights.sum())), 1)
            self.copies *= int(np.ceil(weights.max() * self.length / weights.sum())) + 1
        self._order = functools.lru_cache(2)(self._epoch)  # a batch may reach into the next epoch

    def at(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """places i64[B] -> (ids i64[B], turns i64[B]), where turn = epoch * copies + copy."""
        epochs, draws = np.divmod(places, self.length)
        chosen, again = np.divmod(draws, self.repeats)
        ids, copies = np.empty_like(places), np.zeros_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            ids[here], copies[here] = self._order(int(epoch))(chosen[here])
        return ids, epochs * self.copies + copies * self.repeats + again

    def _epoch(self, epoch: int) -> Callable:
        """i64[n] draws of an epoch -> (ids, copies)."""
        if self._weights is not None:
            ids, copies = weighted_draws(self._weights, self.length, generator(self.seed, epoch))
            return lambda draws: (ids[draws], copies[draws])
        if self.size > IN_MEMORY:
            keys = generator(self.seed, epoch).integers(0, 2**63, ROUNDS, np.uint64)
            return lambda draws: (cipher(draws, self.size, keys), 0)
        ids = generator(self.seed, epoch).permutation(self.size)
        return lambda draws: (ids[draws], 0)


def cipher(places: np.ndarray, size: int, keys: np.ndarray) -> np.ndarray:
    """i64[n] numbers below `size` -> the same numbers in another order, without a table.

    A Feistel network over the next even number of bits, walked until it is below `size` (Black and
    Rogaway, Ciphers with Arbitrary Finite Domains, 2002): a permutation for every u64[r] of keys,
    in memory that does not grow with `size`.
    """
    half = np.uint64((max(size - 1, 1).bit_length() + 1) // 2)
    low = (np.uint64(1) << half) - np.uint64(1)

    def encrypt(numbers):
        left, right = numbers >> half, numbers & low
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) & low)
        return left << half | right

    found = encrypt(places.astype(np.uint64))
    while (outside := found >= size).any():
        found[outside] = encrypt(found[outside])
    return found.astype(np.int64)


def _mixed(x: np.ndarray) -> np.ndarray:
    """The finalizer of splitmix64: every bit of the result depends on every bit of x."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def weighted_draws(weights: np.ndarray, length: int, random: np.random.Generator):
    """(ids i64[length], copies i64[length]) of one epoch, in random order.

    Each example comes floor or ceil of weight * length / sum(weights) times: systematic sampling,
    whose counts vary less than those of independent draws.
    """
    shuffled = random.permutation(len(weights))
    ends = np.cumsum(weights[shuffled], dtype=np.float64)
    ends *= length / ends[-1]
    ends[-1] = length
    counts = np.diff(np.floor(ends + random.random()), prepend=0.0).astype(np.int64)
    ids = np.repeat(shuffled, counts)
    copies = np.arange(length) - np.repeat(np.cumsum(counts) - counts, counts)
    mixed = random.permutation(length)
    return ids[mixed], copies[mixed]


# ---- samplers: labels i32[N] or f32[N,K] -> weights f64[N], how often each comes in an epoch --


@SAMPLERS.register()
def class_balanced(labels: np.ndarray, classes: int, *, power: float = 1.0) -> np.ndarray:
    """Every class as often as every other; an epoch is as long as the split.

    power: a class of n examples comes in proportion to n ** (1 - power): 1 is balanced, 0.5 the
    square-root sampling of arXiv 1805.00932, 0 the data as it is. An example of several labels
    counts as its rarest.
    """
    if not 0 <= power <= 1:
        raise ConfigError(f"power={power}", where="config.data.sampling.power",
                          fix="use 0 (as it is) to 1 (balanced)")
    rarest = _of_rarest(labels, classes, lambda count, total: count**-power)
    return rarest * (len(labels) / rarest.sum())


@SAMPLERS.register()
def repeat_factor(labels: np.ndarray, classes: int, *, threshold: float) -> np.ndarray:
    """Examples of a class that fewer than a share `threshold` have come max(1, sqrt(t / f)) times
    (LVIS, arXiv 1908.03195, section 4), on average; an epoch is longer than the split by that.

    An example of several labels counts as its rarest.
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold={threshold}", where="config.data.sampling.threshold",
                          fix="use a share of the examples above 0, such as 0.001")
    return _of_rarest(labels, classes, lambda count, total: np.maximum(
        1.0, np.sqrt(threshold * total / count)))


def _of_rarest(labels: np.ndarray, classes: int, factor: Callable) -> np.ndarray:
    """f64[N]: the largest of factor(examples of the class, N) over an example's classes.

    Examples without a label are a class of their own.
    """
    if labels.ndim == 1:
        counts = np.bincount(labels, minlength=classes)
        return factor(np.maximum(counts, 1).astype(np.float64), len(labels))[labels]
    present = labels > 0
    without = ~present.any(1)
    counts = np.maximum(present.sum(0), 1).astype(np.float64)
    largest = np.where(present, factor(counts, len(labels)), 0.0).max(1)
    return np.where(without, factor(np.float64(max(without.sum(), 1)), len(labels)), largest)
