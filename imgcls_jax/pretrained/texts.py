"""Embeddings of what classes are called, as a text encoder gives them, for zero-shot labelling."""

from pathlib import Path

import numpy as np

from imgcls_jax.errors import CheckpointError
from imgcls_jax.pretrained import files

SCALE = "logit_scale"
USUAL = float(np.log(100))  # about what CLIP and SigLIP end at


def read(path: str | Path) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """(classes, their embeddings f32[D,K] of length 1, logit_scale f32[]) of a file of arrays.

    The name of each array is a class; it is f[D], or f[P,D] for P texts about it, whose directions
    are averaged. A number "logit_scale" is the logarithm of the factor of the cosines; without it
    the factor is 100. CheckpointError for a file that is none, or with vectors of several lengths,
    of zeros, or not finite.
    """
    arrays = files.read(Path(path))
    scale = np.asarray(arrays.pop(SCALE, USUAL), np.float32)
    found = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
    fix = "write one array f[D], or f[texts,D], for each class, under the name of the class"
    widths = {value.shape[-1] if value.ndim in (1, 2) else 0 for value in found.values()}
    if len(widths) != 1 or not min(widths) or scale.size != 1 or not np.isfinite(scale):
        raise CheckpointError(f"{len(found)} classes have embeddings of {sorted(widths)} numbers",
                              where=str(path), fix=fix)
    means = []
    for name, value in found.items():
        with np.errstate(invalid="ignore"):
            mean = np.mean([one / np.linalg.norm(one) for one in np.atleast_2d(value)], 0)
            mean = mean / np.linalg.norm(mean)
        if not np.isfinite(mean).all():
            raise CheckpointError(f"the embedding of {name!r} is zero or not finite",
                                  where=str(path), fix=fix)
        means.append(mean)
    return tuple(found), np.stack(means, -1), scale.reshape(())
