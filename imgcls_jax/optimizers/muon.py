"""Momentum with orthogonalised matrices."""

import re
from typing import Literal

import jax.numpy as jnp
import optax

from imgcls_jax import tree
from imgcls_jax.optimizers import OPTIMIZERS, Parts
from imgcls_jax.registry import BelowOne, Count, NotNegative

QUINTIC = (3.4445, -4.7750, 2.0315)


@OPTIMIZERS.register(decay="times_lr", high=1)
def muon(parts: Parts, *, momentum: BelowOne = 0.95, nesterov: bool = True, iterations: Count = 5,
         adjust: Literal["original", "match_rms_adamw"] = "original",
         adamw: str = "(stem|patches|head).*", adamw_rate: NotNegative = 0.015, b1: BelowOne = 0.9,
         b2: BelowOne = 0.95, eps: NotNegative = 1e-10) -> optax.GradientTransformation:
    """Muon (Keller Jordan, github.com/KellerJordan/Muon): the momentum of a matrix becomes the
    nearest matrix with singular values of about 1, by `iterations` of Newton-Schulz.

    A convolution kernel is the matrix [H * W * inputs, outputs]. Parameters that are not matrices,
    and those that the regex `adamw` matches (embeddings and heads), are updated by AdamW with b1,
    b2, eps and adamw_rate times the learning rate, also in the decay: 0.015 means 3e-4 if Muon has
    0.02. adjust: the step is multiplied by sqrt(max(1, outputs / inputs)), or by
    0.2 * sqrt(max(outputs, inputs)) (arXiv 2502.16982, eq. 4), which suits AdamW's learning rate
    and adamw_rate 1.
    """
    def labels(updates):
        return tree.map_with_path(
            lambda path, leaf: "adamw" if leaf.ndim < 2 or min(_matrix(leaf)) == 1
            or not path.endswith("kernel") or re.fullmatch(adamw, path) else "muon", updates)

    matrices = optax.chain(parts.inside, optax.trace(momentum, nesterov),
                           _orthogonal(iterations, adjust), parts.rate, parts.apart)
    others = optax.chain(parts.inside, optax.scale_by_adam(b1, b2, eps), parts.rate, parts.apart,
                         optax.scale(adamw_rate))
    return optax.partition({"muon": matrices, "adamw": others}, labels)


def _matrix(leaf) -> tuple[int, int]:
    """(inputs, outputs)."""
    return leaf.size // leaf.shape[-1], leaf.shape[-1]


def _orthogonal(iterations: int, adjust: str) -> optax.GradientTransformation:
    # optax.contrib's is not Keller Jordan's: it corrects the bias of the two terms of Nesterov's
    # momentum by different powers, so that their weights differ in the first steps.
    def direction(update, parameter):
        inputs, outputs = _matrix(update)
        factor = (max(1.0, outputs / inputs) ** 0.5 if adjust == "original" else
                  0.2 * max(outputs, inputs) ** 0.5)
        return factor * newton_schulz(update.reshape(inputs, outputs), iterations).reshape(
            update.shape)

    return optax.stateless_with_tree_map(direction)


def newton_schulz(matrix, iterations: int):
    """f[N,M] -> about U V' of its singular value decomposition U S V'; the scale of the matrix does
    not matter. All singular values end between 0.7 and 1.2, not exactly at 1."""
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / jnp.maximum(jnp.linalg.norm(x), 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
