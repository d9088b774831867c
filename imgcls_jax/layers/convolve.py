"""2-D convolution; on a CPU with special forms for depthwise convolutions, for kernels larger than
the feature map, and for the gradient of a kernel."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

CHANNELS = 16  # minimum in a product for the gradient of a kernel on a CPU


def convolve(x, kernel, stride: int, padding, groups: int = 1):
    """x f[B,H,W,C], kernel f[h,w,C/groups,D] -> f[B,H',W',D].

    padding: "SAME", or pixels before and after, ((top, bottom), (left, right)).
    """
    if padding == "SAME":
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), "SAME")
    padding = tuple(map(tuple, padding))
    own = groups == 1 or groups == x.shape[-1] == kernel.shape[-1]
    return (_convolve if own else _plain)(x, kernel, stride, padding, groups)


def _plain(x, kernel, stride, padding, groups):
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _plain_back(x, kernel, dy, stride, padding, groups):
    return jax.vjp(lambda x, kernel: _plain(x, kernel, stride, padding, groups), x, kernel)[1](dy)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(x, kernel, stride, padding, groups):
    empty = min(_out(x, kernel.shape[:2], stride, padding)) < 1  # those are left to XLA
    if groups == 1 and (empty or not _exceeds(kernel, x)):
        return _plain(x, kernel, stride, padding, groups)
    form = _as_product if groups == 1 else _shifted
    return lax.platform_dependent(
        x, kernel, cpu=functools.partial(form, stride=stride, padding=padding),
        default=functools.partial(_plain, stride=stride, padding=padding, groups=groups))


def _forward(x, kernel, stride, padding, groups):
    return _convolve(x, kernel, stride, padding, groups), (x, kernel)


def _backward(stride, padding, groups, kept, dy):
    def cpu(x, kernel, dy):
        if groups == 1:
            product = dy.size and _exceeds(kernel, dy)
            form = _as_product if product else functools.partial(_plain, groups=1)
            return (jax.vjp(lambda x: form(x, kernel, stride, padding), x)[1](dy)[0],
                    _kernel_gradient(x, dy, kernel, stride, padding))
        return (_shifted_back(dy, kernel, x.shape, stride, padding),
                _taps_gradient(x, dy, kernel, stride, padding))

    return lax.platform_dependent(
        *kept, dy, cpu=cpu,
        default=functools.partial(_plain_back, stride=stride, padding=padding, groups=groups))


_convolve.defvjp(_forward, _backward)


# ---- on a CPU -------------------------------------------------------------------------------


def _places(x, size, out, stride, padding):
    """The pixels f[B,H',W',C] under each place of a kernel of `size`, row by row."""
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    ends = [(n - 1) * stride + 1 for n in out]
    for i in range(size[0]):
        for j in range(size[1]):
            yield x[:, i:i + ends[0]:stride, j:j + ends[1]:stride]


def _exceeds(kernel, x) -> bool:
    """Whether a kernel is larger than the feature map it is applied to."""
    return any(k > n for k, n in zip(kernel.shape[:2], x.shape[1:3], strict=True))


def _as_product(x, kernel, stride, padding):
    """The convolution as one matrix product over all places of the kernel: if the kernel is larger
    than the map, XLA's CPU backend uses plain loops (3x3 over 2x2 pixels: 8 to 60 times slower)."""
    out = _out(x, kernel.shape[:2], stride, padding)
    columns = jnp.concatenate([*_places(x, kernel.shape[:2], out, stride, padding)], -1)
    y = columns.reshape(-1, columns.shape[-1]) @ kernel.reshape(-1, kernel.shape[-1])
    return y.reshape(len(x), *out, kernel.shape[-1])


def _kernel_gradient(x, dy, kernel, stride, padding):
    """The gradient as matrix products, one per place of the kernel: XLA's CPU backend convolves
    images transposed to [C,H,W,B], at a fraction of the speed."""
    parts = tuple(_places(x, kernel.shape[:2], dy.shape[1:3], stride, padding))
    # With few channels a product is too narrow: several places are joined into one.
    count = max(1, CHANNELS // x.shape[-1])
    parts = [jnp.concatenate(parts[i:i + count], -1) for i in range(0, len(parts), count)]
    # Without the barriers XLA would transpose each part, and compute it while doing so.
    turned = lax.optimization_barrier(dy).reshape(-1, dy.shape[-1]).T
    turned, *parts = lax.optimization_barrier(
        [turned, *(part.reshape(-1, part.shape[-1]) for part in parts)])
    rows = lax.optimization_barrier([turned @ part for part in parts])
    return jnp.concatenate(rows, -1).T.reshape(kernel.shape)


# Depthwise: a sum of shifted products, one per place of the kernel. XLA's CPU backend convolves
# channel by channel and leaves the vector units idle.


def _out(x, size, stride, padding):
    return [(n + sum(pad) - k) // stride + 1
            for n, k, pad in zip(x.shape[1:3], size, padding, strict=True)]


def _shifted(x, kernel, stride, padding):
    size, wide = kernel.shape[:2], jnp.promote_types(x.dtype, jnp.float32)
    taps = kernel.reshape(-1, kernel.shape[-1]).astype(wide)
    parts = _places(x, size, _out(x, size, stride, padding), stride, padding)
    return sum(part * tap for part, tap in zip(parts, taps, strict=True)).astype(x.dtype)


def _shifted_back(dy, kernel, shape, stride, padding):
    """The gradient of x: dy, spaced by zeros for a stride, convolved with the flipped kernel."""
    pads = [(k - 1 - low, n - 1 + low - (m - 1) * stride, stride - 1) for k, n, m, (low, _) in zip(
        kernel.shape[:2], shape[1:3], dy.shape[1:3], padding, strict=True)]
    dy = lax.pad(dy, jnp.zeros((), dy.dtype), ((0, 0, 0), *pads, (0, 0, 0)))
    return _shifted(dy, kernel[::-1, ::-1], 1, ((0, 0), (0, 0)))


def _taps_gradient(x, dy, kernel, stride, padding):
    parts = _places(x, kernel.shape[:2], dy.shape[1:3], stride, padding)
    dy = dy.astype(jnp.promote_types(dy.dtype, jnp.float32))
    sums = jnp.stack([(part * dy).sum((0, 1, 2)) for part in parts])
    return sums.reshape(kernel.shape).astype(kernel.dtype)
