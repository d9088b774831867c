"""Initial variables from shapes: no compiled `model.init`.

Tracing `init` takes a second, compiling it half a minute (ResNet-50 on a CPU), and its result can
be computed without: the module is traced once to learn the shape and the initialiser of every leaf,
and numpy draws the leaf. A draw is a function of (seed, path): the same on any topology.
"""

import contextvars
import inspect
import logging
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core.scope import Scope

from imgcls_jax import tree

TRUNCATED_STD = 0.87962566103423978  # of a unit normal cut at +-2, as jax divides by

SOWN = ("aux_logits", "intermediates")  # outputs of a forward pass, not state

Recorded = dict[str, tuple[Callable, tuple]]  # path -> (initialiser, arguments after the key)


def abstract(module, sample_shape: tuple[int, ...], *, dtype: str = "float32") -> Any:
    """Shapes and dtypes of the module's variables for images f[B,H,W,C]; floats are `dtype`."""
    return _trace(module, sample_shape, dtype)[0]


def initialise(module, sample_shape: tuple[int, ...], seed: int, *, dtype: str = "float32") -> dict:
    """The module's variables on the host, as numpy, drawn as its initialisers say.

    The distributions are those of `module.init`, the numbers are not. An initialiser that is not
    one of jax.nn.initializers is called as it is; leaves whose shape a lifted transformation
    changes (nn.scan, nn.vmap) come from a compiled `module.init`. Every leaf is a function of
    (seed, path), whatever the others are.
    """
    shapes, recorded = _trace(module, sample_shape, dtype)
    leaves = {path: _draw(path, shape, recorded, seed)
              for path, shape in tree.flatten(shapes).items()}
    missing = [path for path, values in leaves.items() if values is None]
    if missing:
        logging.warning("%s cannot be drawn from its shape alone: compiling init", missing[0])
        made = jax.jit(_init(module))(jax.random.key(seed), jnp.zeros(sample_shape, dtype))
        leaves |= {path: np.asarray(tree.flatten(made)[path]) for path in missing}
    dtypes = {path: shape.dtype for path, shape in tree.flatten(shapes).items()}
    return tree.unflatten({path: values.astype(dtypes[path])
                           for path, values in leaves.items()}, shapes)


def _init(module):
    def init(key, images):
        keys = dict(zip(("params", "dropout"), jax.random.split(key), strict=True))
        variables = dict(module.init(keys, images, train=False))
        return {name: value for name, value in variables.items() if name not in SOWN}
    return init


def _trace(module, sample_shape, dtype) -> tuple[Any, Recorded]:
    recorded: Recorded = {}
    token = _recorded.set(recorded)
    try:
        shapes = jax.eval_shape(_init(module), jax.eval_shape(jax.random.key, 0),
                                jax.ShapeDtypeStruct(sample_shape, dtype))
    finally:
        _recorded.reset(token)

    def cast(leaf):
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jax.ShapeDtypeStruct(leaf.shape, dtype if floating else leaf.dtype)

    return jax.tree.map(cast, shapes), recorded


# flax tells nobody which initialiser a variable has, so its two methods are wrapped, once and for
# all threads. What they record goes to the context of the caller alone: another thread may trace a
# module with the same names at the same time, as the training step does.
_recorded: contextvars.ContextVar[Recorded | None] = contextvars.ContextVar("recorded",
                                                                            default=None)


def _record(collection: str, scope: Scope, name: str, initialiser, arguments: tuple):
    recorded = _recorded.get()
    if recorded is not None:
        recorded["/".join((collection, *scope.path, name))] = initialiser, arguments


def _recording_param(scope, name, init_fn, *arguments, _original=Scope.param, **options):
    _record("params", scope, name, init_fn, arguments)
    return _original(scope, name, init_fn, *arguments, **options)


def _recording_variable(scope, collection, name, init_fn=None, *arguments,
                        _original=Scope.variable, **options):
    _record(collection, scope, name, init_fn, arguments)
    return _original(scope, collection, name, init_fn, *arguments, **options)


Scope.param, Scope.variable = _recording_param, _recording_variable


def _draw(path: str, shape, recorded: Recorded, seed: int) -> np.ndarray | None:
    """The leaf's values, or None if they do not follow from what was recorded."""
    initialiser, arguments = recorded.get(path, (None, ()))
    if initialiser is None:
        return None
    keyed = path.startswith("params/")
    given = next((a for a in arguments if isinstance(a, tuple | list)), None)  # list: flax's
    if given is not None and tuple(given) != tuple(shape.shape):
        return None  # a lifted transformation added an axis
    if initialiser in (jnp.zeros, jnp.ones):  # no need to compile a program
        return np.full(shape.shape, float(initialiser is jnp.ones), np.float32)
    known, number = _KNOWN.get(_kind(initialiser)), zlib.crc32(path.encode())
    try:
        if known and given is not None:
            rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, number])))
            return known(rng, shape.shape, **_settings(initialiser))
        values = _call(initialiser, arguments, seed, number if keyed else None)
    except jax.errors.JAXTypeError:
        return None  # its closure holds a value of the trace
    if isinstance(values, jax.core.Tracer) or values.shape != shape.shape:
        return None
    return np.asarray(values)


def _call(initialiser: Callable, arguments: tuple, seed: int, number: int | None):
    """The result of an initialiser that is not recognised; number: of its key, if it takes one."""
    if number is None:
        return initialiser(*arguments)
    key = jax.random.fold_in(jax.random.key(seed), number)
    return initialiser(key, *arguments)


# ---- jax.nn.initializers, by the name of the function that makes them -----------------------


def _kind(initialiser: Callable) -> str:
    if not getattr(initialiser, "__module__", "").startswith(("jax.nn", "jax._src.nn")):
        return ""
    return initialiser.__qualname__.split(".")[0]


def _settings(initialiser: Callable) -> Mapping[str, Any]:
    """What the factory was called with: the free variables of the closure it returned."""
    settings = dict(inspect.getclosurevars(initialiser).nonlocals)
    settings.pop("dtype", None)
    return settings


def _zeros(rng, shape):
    return np.zeros(shape, np.float32)


def _ones(rng, shape):
    return np.ones(shape, np.float32)


def _constant(rng, shape, *, value):
    return np.broadcast_to(np.asarray(value), shape)


def _uniform(rng, shape, *, scale):
    return rng.random(shape, np.float32) * scale


def _normal(rng, shape, *, stddev):
    return rng.standard_normal(shape, np.float32) * np.float32(stddev)


def _truncated_normal(rng, shape, *, stddev, lower=-2.0, upper=2.0):
    """Redraws what lies outside: exact, and faster than inverting the distribution."""
    values = rng.standard_normal(shape, np.float32)
    flat = values.reshape(-1)
    outside = np.flatnonzero((flat < lower) | (flat > upper))
    while outside.size:
        flat[outside] = rng.standard_normal(outside.size, np.float32)
        outside = outside[(flat[outside] < lower) | (flat[outside] > upper)]
    return values * np.float32(stddev)


def _variance_scaling(rng, shape, *, scale, mode, distribution, in_axis, out_axis, batch_axis):
    """arXiv 1502.01852 and its relatives, with fans as jax counts them."""
    def axes(axis):
        return [a % len(shape) for a in (axis if isinstance(axis, list | tuple) else (axis,))]

    inputs, outputs = (math.prod(shape[a] for a in axes(axis)) for axis in (in_axis, out_axis))
    batch = math.prod(shape[a] for a in axes(batch_axis)) if batch_axis != () else 1
    receptive = math.prod(shape) / (inputs * outputs * batch)
    fan_in, fan_out = inputs * receptive, outputs * receptive
    fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2,
            "fan_geo_avg": math.sqrt(fan_in * fan_out)}
    std = math.sqrt(scale / fans[mode])
    if distribution == "normal":
        return _normal(rng, shape, stddev=std)
    if distribution == "truncated_normal":
        return _truncated_normal(rng, shape, stddev=std / TRUNCATED_STD)
    bound = np.float32(math.sqrt(3.0) * std)
    return (rng.random(shape, np.float32) * 2 - 1) * bound


_KNOWN = {"zeros": _zeros, "ones": _ones, "constant": _constant, "uniform": _uniform,
          "normal": _normal, "truncated_normal": _truncated_normal,
          "variance_scaling": _variance_scaling}
