"""Matrix product whose backward pass is fast on a CPU too."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

WIDE = 512  # columns from which on a faster product outweighs a copy on a CPU


@jax.custom_vjp
def matmul(x, kernel):
    """x f[...,K], kernel f[K,C] -> f[...,C]."""
    return x @ kernel


def _forward(x, kernel):
    return x @ kernel, (x, kernel)


def _backward(kept, dy):
    return lax.platform_dependent(*kept, dy, cpu=_on_cpu, default=_plain)


def _plain(x, kernel, dy):
    return jax.vjp(lambda x, kernel: x @ kernel, x, kernel)[1](dy)


def _on_cpu(x, kernel, dy):
    x, dy = lax.optimization_barrier((x, dy))
    return dy @ kernel.T, contract_rows(*(a.reshape(-1, a.shape[-1]) for a in (x, dy)))


def contract_rows(x, dy):
    """x f[N,K], dy f[N,C] -> x.T @ dy, in the form that is fastest on a CPU.

    XLA's CPU backend transposes one of the factors, if only in its cache: here the smaller one, and
    for a wide product in memory, because then the product itself is faster. Neither factor may be
    computed within the product, because that would happen column by column.
    """
    narrow, other = (x, dy) if x.shape[1] <= dy.shape[1] else (dy, x)
    turned = narrow.T
    if other.shape[1] >= WIDE:
        turned = lax.optimization_barrier(turned)
    # This barrier keeps XLA from transposing the other factor instead.
    product = lax.optimization_barrier(turned @ other)
    return product if narrow is x else product.T


matmul.defvjp(_forward, _backward)


def dense(features: int, *, dtype, **options) -> nn.Dense:
    """flax's Dense with `matmul` as its product and parameters in f32 at least."""
    return nn.Dense(features, dtype=dtype, param_dtype=jnp.promote_types(dtype, jnp.float32),
                    dot_general=_dot_general, **options)


def _dot_general(x, kernel, dimensions, precision):
    return matmul(x, kernel)
