"""Features of a split on the host, to fit classifiers to them or to search in them."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from imgcls_jax.errors import ConfigError
from imgcls_jax.evaluators import Parts, _gather


def collector(parts: Parts) -> Callable:
    """(variables, split or None) -> (features f32[N,D], labels i32[N]), on every process."""
    if parts.task.kind != "multiclass":
        raise ConfigError(f"this evaluator is not for a {parts.task.kind} task",
                          where="config.evals",
                          fix="use this evaluator where every example has one label")

    @jax.jit
    def compute(variables, batch):
        features = parts.embed(variables, batch["image"])
        return {"features": features.reshape(len(features), -1).astype(jnp.float32),
                "label": batch["label"]}

    def collect(variables, split: str | None = None):
        rows = _gather.over(parts.batches(split), functools.partial(compute, variables))
        return rows["features"], rows["label"]

    return collect


def unit(features: np.ndarray) -> np.ndarray:
    """Rows of length 1, as cosine similarity needs them."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def nearest(queries: np.ndarray, bank: np.ndarray, count: int, *, block: int = 256,
            others: bool = False):
    """Yields (similarity f32[b,count], index i32[b,count]) for one block of queries after another:
    the rows of the bank with the largest products, the largest first, ties in order of rows.

    others: query i is row i of the bank and is left out of its own results.
    """
    bank = jnp.asarray(bank)

    @jax.jit
    def search(rows, first, bank):
        # The default precision of some accelerators rounds to bfloat16, which changes neighbours.
        found = jnp.matmul(rows, bank.T, precision="highest")
        own = jnp.arange(len(bank)) == first + jnp.arange(len(rows))[:, None]
        return jax.lax.top_k(jnp.where(own & others, -jnp.inf, found), count)

    for first in range(0, len(queries), block):
        rows = queries[first:first + block]
        padded = np.pad(rows, ((0, block - len(rows)), (0, 0)))  # one shape, one program
        found = search(padded, first, bank)
        yield tuple(np.asarray(leaf)[:len(rows)] for leaf in found)
