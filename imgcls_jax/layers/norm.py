"""Batch normalisation under jit, where a layer sees the global batch."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from imgcls_jax.errors import ConfigError
from imgcls_jax.layers.conv import Product
from imgcls_jax.layers.matmul import matmul


class BatchNorm(nn.Module):
    """Batch normalisation (arXiv 1502.03167): f[B,...,C] -> f[B,...,C] in `dtype`.

    Also takes the Product of a convolution; then the convolution's output is never stored.

    group: examples per statistic, consecutive in the batch, as on one replica of a published
      recipe; None means the whole batch. Running statistics average those of the groups, so the
      numbers do not depend on the mesh. The running variance uses the unbiased one, n/(n-1) times
      that which normalises, as in the paper (algorithm 2), torch and TensorFlow; not in flax.
    momentum: share of the old running statistics that stays; 0.9 is torch's 0.1.

    ConfigError if `group` does not divide the batch.
    """

    group: int | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: Callable = nn.initializers.ones
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train: bool = False, pool: Callable | None = None):
        """pool: f[B,H,W,C] -> the maxima of its windows; then pool(relu(normalised)) is returned.
        Both functions are monotone, so pooling comes first and the rest works on fewer pixels."""
        wide = jnp.promote_types(self.dtype, jnp.float32)
        inputs, kernel = x if isinstance(x, Product) else (x, None)
        shape = kernel.shape[1:] if kernel is not None else x.shape[-1:]
        scale = self.param("scale", self.scale_init, shape, wide)
        bias = self.param("bias", nn.initializers.zeros, shape, wide)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, wide)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, wide)
        if kernel is not None and pool is not None:
            inputs, kernel = _matmul(inputs, kernel).astype(self.dtype), None

        training = train and not self.is_initializing()
        groups = self._groups(inputs) if training else inputs[None]
        count = groups[0].size // groups.shape[-1]
        mean, var = running_mean.value[None], running_var.value[None]
        if training and kernel is not None:
            y, mean, var = lax.platform_dependent(
                groups, kernel, scale, bias, cpu=functools.partial(_written, epsilon=self.epsilon),
                default=lambda *a: _normalised_product(*a, self.epsilon))
        else:
            if pool is not None:  # where the scale is negative, signs are flipped around pooling
                sign = jnp.where(scale < 0, -1, 1)
                groups, scale, mean = groups * sign.astype(self.dtype), scale * sign, mean * sign
            values = (groups if kernel is None else _matmul(groups, kernel)).astype(wide)
            if training:
                mean, var = _moments(values)
            if pool is not None:
                values = pool(groups.reshape(inputs.shape)).astype(wide)
                values = values.reshape(*groups.shape[:2], *values.shape[1:])
            y = (values - _over(mean, values)) * _over(
                scale * lax.rsqrt(var + self.epsilon), values) + bias
            if pool is not None:
                y, mean = nn.relu(y), mean * sign
        if training:
            unbiased = var * (count / max(count - 1, 1))
            for running, value in ((running_mean, mean), (running_var, unbiased)):
                value = lax.stop_gradient(value).mean(0)
                running.value = self.momentum * running.value + (1 - self.momentum) * value
        return y.astype(self.dtype).reshape(len(inputs), *y.shape[2:])

    def _groups(self, x):
        size, batch = self.group or len(x), len(x)
        if batch % size:
            below = batch // size * size
            sizes = f"{below} or {below + size}" if below else f"{size}"
            raise ConfigError(
                f"norm_group={size} (examples per BatchNorm statistic) does not divide a "
                f"(micro)batch of {batch}", where=f"norm_group={size} in {'/'.join(self.path)}",
                fix=f"use a batch of {sizes} examples, or another norm_group")
        return x.reshape(batch // size, size, *x.shape[1:])


def _moments(groups):
    """f[G,N,...,C] -> mean and variance f[G,C], in one pass over the data."""
    axes = tuple(range(1, groups.ndim - 1))
    mean, square = groups.mean(axes), (groups * groups).mean(axes)
    # For a constant channel rounding may make the difference negative.
    return mean, jnp.maximum(square - mean * mean, 0)


def _over(values, groups):
    """f[G,C] -> f[G,1,...,C], to be broadcast over f[G,N,...,C]."""
    return values.reshape(len(values), *(1,) * (groups.ndim - 2), -1)


# ---- after a 1x1 convolution ----------------------------------------------------------------
#
# y = x W with x of K channels and y of C > K. The mean of y is that of x times W, the covariance
# of y is W' cov(x) W, and all that the backward pass needs of y follows likewise: neither pass
# writes y or reads it again, which matters because memory bandwidth limits a training step and
# f[B,H,W,C] is the largest array of a bottleneck. In exact arithmetic the results are the same.


def _matmul(x, kernel):
    """f[...,K], f[K,C] -> f[...,C] in f32 at least."""
    return lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())),
                           preferred_element_type=jnp.promote_types(x.dtype, jnp.float32))


def _by_group(x, y):
    """f[G,N,...,K], f[G,N,...,C] -> f[G,K,C]: sums of products over all examples of a group.

    What is left after the means are subtracted may be thousands of times smaller than the sums. So
    factors of f32 are not rounded, as they would be by default on a GPU (to TF32) and a TPU (to
    bf16); products of bf16 are exact anyway.
    """
    over = tuple(range(1, x.ndim - 1))
    return lax.dot_general(x, y, ((over, over), ((0,), (0,))),
                           precision=None if x.dtype == jnp.bfloat16 else lax.Precision.HIGHEST,
                           preferred_element_type=jnp.promote_types(x.dtype, jnp.float32))


def _written(x, kernel, scale, bias, epsilon):
    """_normalised_product in its plain form: on a CPU products are the limit, not memory."""
    y = matmul(x, kernel).astype(scale.dtype)
    mean, var = _moments(y)
    y = (y - _over(mean, y)) * _over(scale * lax.rsqrt(var + epsilon), y) + bias
    return y.astype(x.dtype), mean, var


# The matrices are small, so full precision costs nothing; a TPU would round factors to bf16.
_small = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _normalised_product(x, kernel, scale, bias, epsilon: float):
    """BatchNorm of x W: x f[G,N,...,K], kernel f[K,C] -> (f[G,N,...,C] in x's dtype, mean f[G,C],
    variance f[G,C]). The statistics have no gradient."""
    return _forward(x, kernel, scale, bias, epsilon)[0]


def _forward(x, kernel, scale, bias, epsilon):
    wide, count = scale.dtype, x[0].size // x.shape[-1]
    weights = kernel.astype(wide)
    center = x.sum(tuple(range(1, x.ndim - 1)), dtype=wide) / count
    covariance = _by_group(x, x) / count - center[:, :, None] * center[:, None]
    mean = _small("gk,kc->gc", center, weights)
    turned = _small("gkl,lc->gkc", covariance, weights)
    var = jnp.maximum((turned * weights).sum(1), 0)
    factor = scale * lax.rsqrt(var + epsilon)
    y = _matmul(x, kernel)
    y = y * _over(factor, y) + _over(bias - mean * factor, y)
    return ((y.astype(x.dtype), mean, var),
            (x, kernel, scale, center, turned, lax.rsqrt(var + epsilon)))


def _backward(epsilon, kept, cotangents):
    x, kernel, scale, center, turned, inverse = kept
    dy = cotangents[0]
    wide, count = scale.dtype, x[0].size // x.shape[-1]
    weights, factor = kernel.astype(wide), scale * inverse
    dbias = dy.sum(tuple(range(1, dy.ndim - 1)), dtype=wide)
    product = _by_group(x, dy) - center[:, :, None] * dbias[:, None]
    spread = (weights * product).sum(1)  # sum of dy (y - mean)
    slope = inverse * inverse * spread
    dkernel = (factor[:, None] * (product - turned * slope[:, None])).sum(0)
    # dx = (factor dy - factor mean(dy) - factor slope / count (y - mean)) W'
    inner = _small("kc,gc,lc->gkl", weights, factor * slope / count, weights)
    offset = _small("gc,kc->gk", factor * dbias / count, weights) - _small(
        "gk,gkl->gl", center, inner)
    if len(x) == 1:
        dx = _matmul(dy, (weights * factor[0]).T.astype(x.dtype))
        dx = dx - _matmul(x, inner[0].astype(x.dtype))
    else:
        dx = _matmul((dy * _over(factor, dy)).astype(x.dtype), kernel.T)
        dx = dx - lax.dot_general(x, inner.astype(x.dtype), (((x.ndim - 1,), (1,)), ((0,), (0,))),
                                  preferred_element_type=wide)
    dx = dx - _over(offset, dx)
    return (dx.astype(x.dtype), dkernel.astype(kernel.dtype), (spread * inverse).sum(0),
            dbias.sum(0))


_normalised_product.defvjp(_forward, _backward)
