"""Which example comes at which place in training: a pure function of (seed, place).

Place p of an endless sequence is draw p % length of epoch p // length. A draw is an example and a
copy, the number of earlier draws of the same example in that epoch, so that each is augmented in
its own way.
"""

import functools
from collections.abc import Callable

import numpy as np

IN_MEMORY = 2**24  # examples: up to this many, an epoch's order is an array, above it a cipher
ROUNDS = 8  # of the cipher; with four, neighbors are still correlated


def generator(*seeds: int) -> np.random.Generator:
    """numpy's random generator for a tuple of whole numbers of at least 0."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seeds)))


class Order:
    """The examples of all epochs, one after the other.

    size: of the split. repeats: each draw is repeated this many times in a row (repeated
    augmentation, arXiv 1901.09335); an epoch keeps `length` draws, and so has fewer examples.
    weights: f[size], how often each example comes in an epoch, on average; None is once.
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

    A Feistel network over the next even number of bits, cycle-walked until below `size` (Black and
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
