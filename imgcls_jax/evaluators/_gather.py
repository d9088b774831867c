"""Rows of all examples on the host, whichever devices and processes they were computed on."""

import jax
import numpy as np
from jax.experimental import multihost_utils


def to_host(rows, mask) -> dict[str, np.ndarray]:
    """{name: [B,...]} of a global batch, without its padding, as numpy, on every process."""
    if jax.process_count() > 1:
        rows, mask = multihost_utils.process_allgather((rows, mask), tiled=True)
    real = np.asarray(mask) > 0
    return jax.tree.map(lambda leaf: np.asarray(leaf)[real], rows)


def over(batches, compute) -> dict[str, np.ndarray]:
    """Rows {name: [N,...]} of a whole split; compute: batch -> {name: [B,...]} on the devices.

    The device may be at most two batches ahead of what is fetched.
    """
    found, pending = [], []
    for batch in batches:
        pending.append((compute(batch), batch["mask"]))
        if len(pending) > 2:
            found.append(to_host(*pending.pop(0)))
    found += [to_host(*one) for one in pending]
    return {name: np.concatenate([rows[name] for rows in found]) for name in found[0]}


def fitted_apart(collect, fit: str) -> tuple[tuple, tuple]:
    """(arrays to fit on, arrays to report on), as tuples of [N,...].

    collect: split, or None for that of the evaluation -> such a tuple. Without a split `fit`, every
    second example, beginning with the first, is for fitting, and the others are reported.
    """
    rows = collect(None)
    if fit:
        return collect(fit), rows
    return tuple(leaf[::2] for leaf in rows), tuple(leaf[1::2] for leaf in rows)
