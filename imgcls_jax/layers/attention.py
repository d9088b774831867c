"""Scaled dot-product attention with few passes over its matrix, and self-attention of tokens.

With a few hundred tokens, memory traffic of the attention matrix [B,heads,Q,N] limits the speed,
not its products. The forward pass writes it once, as exp(scores - maximum) in the dtype of the
values; the backward pass reads that, and never normalises it: rows are divided by their sums in
[Q,D].
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

from imgcls_jax.errors import ConfigError
from imgcls_jax.layers.matmul import dense, matmul


class SelfAttention(nn.Module):
    """Multi-head attention of tokens to each other, softmax in f32: f[B,N,D] -> f[B,N,D].

    The kernel of `qkv` is [D, 3 * D]: queries, keys, values, each head by head. recomputed: how
    many of these (1: the values, 2: also the keys) are computed again in the backward pass instead
    of being kept. bias: of qkv. norm: of the queries and keys of each head, over its channels
    (arXiv 2010.04245): its constructor, or None. scale: see `attend`. ConfigError for recomputed
    keys that are normed or rotated.
    """

    heads: int
    dtype: Any
    kernel_init: Callable = nn.initializers.xavier_uniform()
    qkv_init: Callable = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
    recomputed: Literal[0, 1, 2] = 0
    bias: bool = True
    norm: Callable | None = None
    scale: float | None = None

    @nn.compact
    def __call__(self, x, rotation=None, score_bias=None):
        """rotation: cosines and sines f[N,D/heads] by which `rotate` turns queries and keys.
        score_bias: `bias` of `attend`, for which nothing is computed again."""
        wide, width = jnp.promote_types(self.dtype, jnp.float32), x.shape[-1]
        if self.recomputed == 2 and (self.norm or rotation is not None):
            raise ConfigError("keys that are normed or rotated are not computed again",
                              where="config.model.remat", fix="use 'values', or True")
        weights = _Weights(3, width, self.qkv_init, self.dtype, wide, self.bias, name="qkv")(width)
        kept = 3 - self.recomputed
        parts = tuple(_heads(_project(x, *own), self.heads) for own in weights[:kept])
        if self.norm:
            parts = (self.norm(name="query_norm")(parts[0]), self.norm(name="key_norm")(parts[1]),
                     *parts[2:])
        if rotation is not None:
            parts = (rotate(parts[0], *rotation), rotate(parts[1], *rotation), *parts[2:])
        y = (_attend_recomputing(parts, x, weights[kept:]) if self.recomputed else
             attend(*parts, score_bias, self.scale))
        y = y.reshape(x.shape)
        return dense(width, dtype=self.dtype, kernel_init=self.kernel_init, name="out")(y)


def rotate(x, cosines, sines):
    """f[B,N,heads,D] with pairs of channels (i, i + D/2) turned by an angle for each token and pair
    (arXiv 2104.09864): cosines, sines f[N,D], computed in their dtype."""
    first, second = jnp.split(x.astype(cosines.dtype), 2, -1)
    turned = jnp.concatenate((-second, first), -1)
    return (x * cosines[:, None] + turned * sines[:, None]).astype(x.dtype)


class CosineAttention(nn.Module):
    """Attention by the cosine of a query and a key (arXiv 2111.09883, section 3.2), softmax in f32:
    f[B,N,D] -> f[B,N,D].

    Each head has a learned factor of the cosines, at most 100. Keys have no bias: their third of
    that of `qkv` is not used, and is there because torchvision's files have it.
    """

    heads: int
    dtype: Any
    kernel_init: Callable

    @nn.compact
    def __call__(self, x, score_bias=None):
        """score_bias: `bias` of `attend`."""
        wide, width = jnp.promote_types(self.dtype, jnp.float32), x.shape[-1]
        query, (keys, _), value = _Weights(3, width, self.kernel_init, self.dtype, wide,
                                           name="qkv")(width)
        q, k, v = (_heads(_project(x, *own), self.heads) for own in (query, (keys, None), value))
        scale = self.param("logit_scale", nn.initializers.constant(math.log(10)), (self.heads,),
                           wide)
        q = _normalised(q, jnp.exp(jnp.minimum(scale, math.log(100)))[:, None])
        y = attend(q, _normalised(k), v, score_bias, 1.0).reshape(x.shape)
        return dense(width, dtype=self.dtype, kernel_init=self.kernel_init, name="out")(y)


def _normalised(x, length=1.0):
    """f[...,D] of that length, in the dtype of x; zeros stay."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    square = jnp.maximum((wide * wide).sum(-1, keepdims=True), 1e-24)
    return (wide * (lax.rsqrt(square) * length)).astype(x.dtype)


class _Weights(nn.Module):
    """The parameters of a dense layer, in `count` pairs of f[inputs,features] and f[features], or
    None without a bias: so no pair's output is a slice of a larger array, which a TPU would have to
    copy."""

    count: int
    features: int
    kernel_init: Callable
    dtype: Any
    param_dtype: Any
    bias: bool = True

    @nn.compact
    def __call__(self, inputs: int):
        size = self.count * self.features
        kernel = self.param("kernel", self.kernel_init, (inputs, size), self.param_dtype)
        kernels = jnp.split(_as_it_is(kernel.astype(self.dtype)), self.count, -1)
        if not self.bias:
            return tuple((kernel, None) for kernel in kernels)
        bias = self.param("bias", nn.initializers.zeros, (size,), self.param_dtype)
        return tuple(zip(kernels, jnp.split(bias.astype(self.dtype), self.count, -1), strict=True))


def _project(x, kernel, bias):
    """f[B,N,D], f[D,E], f[E] or None -> f[B,N,E]."""
    y = _rows_last(matmul(x, kernel))
    return y if bias is None else y + bias


def _heads(x, heads: int):
    """f[B,N,heads*D] -> f[B,N,heads,D]."""
    return x.reshape(*x.shape[:2], heads, -1)


def attend(queries, keys, values, bias=None, scale: float | None = None):
    """Scaled dot-product attention per head (arXiv 1706.03762, eq. 1), softmax in f32 at least.

    queries: f[B,Q,heads,D]; keys, values: f[B,N,heads,D]. Returns f[B,Q,heads,D].
    bias: f32[W,heads,Q,N] added to the scaled products, as of the W windows of each image: example
      i has bias[i % W]. scale: None for D ** -0.5.
    """
    return _attend(queries, keys, values, bias, scale)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(queries, keys, values, bias, scale):
    return _forward(queries, keys, values, bias, scale)[0]


def _forward(queries, keys, values, bias=None, scale=None):
    q, k, v = (_ordered(x.swapaxes(1, 2)) for x in (queries, keys, values))
    weights, total = lax.platform_dependent(
        q, k, bias, tpu=functools.partial(_twice, scale=scale),
        default=functools.partial(_once, scale=scale))
    inverse = 1 / total[..., None]  # f[B,heads,Q,1]
    y = _einsum("bhqn,bhnd->bhqd", weights, v) * inverse
    y = _ordered(y.astype(v.dtype))
    return y.swapaxes(1, 2), (q, k, v, y, weights, inverse, bias)


def _backward(scale, kept, dy):
    q, k, v, y, weights, inverse, bias = kept
    scaled = _ordered(dy.swapaxes(1, 2)) * inverse
    # The sum in the softmax's derivative p (dp - sum(p dp)) equals sum(y dy) (arXiv 2205.14135, D).
    mean = (y * scaled).sum(-1, keepdims=True)
    scaled = scaled.astype(y.dtype)
    dv = _einsum("bhqn,bhqd->bhnd", weights, scaled)
    dscores = weights * (_einsum("bhqd,bhnd->bhqn", scaled, v) - mean)
    dbias = None if bias is None else dscores.reshape(-1, *bias.shape).sum(0)
    dscores = (dscores * _scale(q, scale)).astype(q.dtype)
    dq = _einsum("bhqn,bhnd->bhqd", dscores, k)
    dk = _einsum("bhqn,bhqd->bhnd", dscores, q)
    return *(_ordered(d.astype(like.dtype)).swapaxes(1, 2)
             for d, like in ((dq, q), (dk, k), (dv, v))), dbias


_attend.defvjp(_forward, _backward)


@jax.custom_vjp
def _attend_recomputing(kept, x, weights):
    """`attend`; only the arguments in `kept` are kept for the backward pass. The others are
    _project(x, *own) for `own` in weights: x is kept anyway, and its product costs little more than
    reading the result would."""
    return _forward_anew(kept, x, weights)[0]


def _forward_anew(kept, x, weights):
    heads = kept[0].shape[2]
    y, (q, k, v, *rest) = _forward(
        *kept, *(_heads(_project(x, *own), heads) for own in weights))
    return y, ((q, k, v)[:len(kept)], x, weights, rest)


def _backward_anew(residuals, dy):
    kept, x, weights, rest = residuals
    # Otherwise XLA would reuse the earlier results, or compute them again long before.
    again, dy = lax.optimization_barrier((x, dy))
    heads = kept[0].shape[1]
    recomputed = (_ordered(_heads(_project(again, *own), heads).swapaxes(1, 2)) for own in weights)
    *gradients, _ = _backward(None, (*kept, *recomputed, *rest), dy)
    dx, dweights = 0, ()
    for own, gradient in zip(weights, gradients[len(kept):], strict=True):
        _, back = jax.vjp(_project, x, *own)
        part, *of_own = back(gradient.reshape(x.shape))
        dx, dweights = dx + part, (*dweights, tuple(of_own))
    return tuple(gradients[:len(kept)]), dx, dweights


_attend_recomputing.defvjp(_forward_anew, _backward_anew)


def _once(q, k, bias=None, scale=None):
    """exp(scores - maximum) f[B,heads,Q,N] and its sums f[B,heads,Q]."""
    scores = _scores(q, k, bias, scale)
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    return weights.astype(q.dtype), weights.sum(-1)


def _twice(q, k, bias=None, scale=None):
    """As _once, but the scores are computed twice, for the maximum and for the rest: then they stay
    in the product's epilogue and are never written to memory in f32."""
    maximum = _scores(q, k, bias, scale).max(-1, keepdims=True)
    q, maximum = lax.optimization_barrier((q, maximum))
    weights = jnp.exp(_scores(q, k, bias, scale) - maximum)
    return lax.optimization_barrier((weights.astype(q.dtype), weights.sum(-1)))


def _scores(q, k, bias, scale):
    scores = _einsum("bhqd,bhnd->bhqn", q, k) * _scale(q, scale)
    if bias is None:
        return scores
    return (scores.reshape(-1, *bias.shape) + bias).reshape(scores.shape)


def _scale(q, scale):
    return q.shape[-1] ** -0.5 if scale is None else scale


def _einsum(spec, *operands):
    # jax.nn.dot_product_attention computes in f32 even where its arguments are f64.
    wide = jnp.promote_types(operands[0].dtype, jnp.float32)
    return jnp.einsum(spec, *operands, preferred_element_type=wide)


# ---- the order of memory --------------------------------------------------------------------
#
# On a TPU the products of attention need the tokens last, all others the channels. By default the
# compiler transposes half of all arrays twice.


def _ordered(x):
    """f[B,heads,N,D]; in memory [B,heads,D,N] on a TPU, and [B,heads,N,D] on a CPU."""
    # XLA's CPU backend would otherwise read heads with a stride, at half the speed.
    return lax.platform_dependent(x, tpu=lambda x: _in_order(x, (0, 1, 3, 2)),
                                  cpu=lax.optimization_barrier, default=lambda x: x)


def _as_it_is(kernel):
    """f[D,E] in row-major order, as in the optimizer's state: copying its three arrays would cost
    more than copying the kernel."""
    return lax.platform_dependent(kernel, tpu=lambda x: _in_order(x, (0, 1)), default=lambda x: x)


@jax.custom_vjp
def _rows_last(x):
    """f[B,N,D], in memory as [B,D,N]; the layout of its gradient is not constrained."""
    return lax.platform_dependent(x, tpu=lambda x: _in_order(x, (0, 2, 1)), default=lambda x: x)


_rows_last.defvjp(lambda x: (_rows_last(x), None), lambda _, dy: (dy,))


def _in_order(x, order):
    return with_layout_constraint(x, Layout(major_to_minor=order))
