"""Reading what happens inside a model, and freezing parts of it, without changing its code."""

import contextlib
import functools
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.interpreters import partial_eval

from imgcls_jax import tree
from imgcls_jax.layers.norm import BatchNorm


def head_input(module, head: str, variables, images) -> dict:
    """{"": what the submodule `head` is called with}."""
    found = {}

    def note(call, arguments, options, context):
        if "/".join(context.module.path) == head and context.method_name == "__call__":
            found[""] = arguments[0]
        return call(*arguments, **options)

    with nn.intercept_methods(note):
        module.apply(variables, images, train=False)
    return found


def intermediates(module, variables, images, *, pattern: str) -> dict:
    """{path: output} of the submodules whose whole path matches the regex `pattern`."""
    found = {}

    def note(call, arguments, options, context):
        out = call(*arguments, **options)
        path = "/".join(context.module.path)
        if context.method_name == "__call__" and re.fullmatch(pattern, path):
            found[path] = out
        return out

    with nn.intercept_methods(note):
        module.apply(variables, images, train=False)
    return found


class Cosines(nn.Module):
    """f[B,D] -> f32[B,classes]: exp(logit_scale) times the cosines with the columns of `texts`."""

    classes: int

    @nn.compact
    def __call__(self, x):
        texts = self.param("texts", nn.initializers.zeros, (x.shape[-1], self.classes))
        scale = self.param("logit_scale", nn.initializers.zeros, ())
        x = x.astype(texts.dtype)
        return jnp.exp(scale) * (x / jnp.linalg.norm(x, axis=-1, keepdims=True)) @ texts


class ZeroShot(nn.Module):
    """f[B,H,W,C] -> logits f32[B,classes] of a model that has embeddings for outputs, `encoder`
    (arXiv 2103.00020, section 3.1.2)."""

    encoder: nn.Module
    classes: int
    dtype: Any

    @nn.compact
    def __call__(self, x, train: bool = False):
        return Cosines(self.classes, name="head")(self.encoder(x, train=train))


def apply_frozen(module, frozen):
    """`module.apply` where the parameters of a tree of bool are constants.

    No gradient is computed for them, nor for what only leads to them. A BatchNorm whose parameters
    are all frozen normalises by its running statistics and keeps them, in training too, as in Keras
    with trainable=False: otherwise the outputs of a frozen layer would still change.
    """
    paths = tree.flatten(frozen)
    trained = {path.rsplit("/", 1)[0] for path, hit in paths.items() if not hit}
    still = {path.rsplit("/", 1)[0] for path, hit in paths.items() if hit} - trained

    def evaluating(call, arguments, options, context):
        if (isinstance(context.module, BatchNorm) and context.method_name == "__call__"
                and "/".join(context.module.path) in still):
            if "train" in options:
                options = {**options, "train": False}
            else:
                arguments = (arguments[0], False, *arguments[2:])
        return call(*arguments, **options)

    def apply(variables, *arguments, **options):
        params = jax.tree.map(lambda hit, leaf: jax.lax.stop_gradient(leaf) if hit else leaf,
                              frozen, variables["params"])
        with nn.intercept_methods(evaluating):
            return module.apply({**variables, "params": params}, *arguments, **options)

    return apply


# ---- a network in two: a frozen body and its head -----------------------------------------------


class Entangled(Exception):
    """A network that is not a body and a head."""


def divide(apply, head: str, variables, images):
    """(body, head, same) of a network that is frozen up to the submodule `head`.

    apply: as of apply_frozen. variables, images f[1,H,W,C]: abstract. body: (variables, images) ->
    features: what the head is called with or, where that is the output of a dropout, what that is
    called with; in evaluation mode. head: (variables, features, **options of apply) -> as of apply;
    the rest of the network is not computed. same: whether the body gives the same in training.
    Entangled where the network returns more than follows from the features.
    """
    cut = _cut(apply, head, variables, images)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def features(train: bool):
        return jax.jit(lambda variables, images, key: _until(
            apply, cut, variables, images, **_mode(variables, key, train))).lower(
                variables, images, key)

    body, trained = features(False), features(True)
    for train in (False, True):
        def rest(variables, row, key, images, train=train):
            return _since(apply, cut, images, variables, row, **_mode(variables, key, train))

        traced = jax.make_jaxpr(rest)(variables, body.out_info, key, images).jaxpr
        if partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))[1][-1]:
            raise Entangled(f"the network returns more than follows from the input of its {head}")
    blank = jnp.zeros(images.shape, images.dtype)
    return (lambda variables, images: _until(apply, cut, variables, images, train=False),
            functools.partial(_since, apply, cut, blank),
            body.as_text() == trained.as_text())


def _mode(variables, key, train: bool) -> dict:
    kept = [name for name in variables if name != "params"]
    return {"train": True, "mutable": [*kept, "aux_logits"],
            "rngs": {"dropout": key}} if train else {"train": False}


def _cut(apply, head: str, variables, images) -> str:
    """The path of the submodule from which on the head alone is left."""
    dropped, cuts = [], []

    def note(call, arguments, options, context):
        path = "/".join(context.module.path)
        if context.method_name == "__call__" and path == head:
            cuts.append(next((place for place, out in dropped if out is arguments[0]), head))
        out = call(*arguments, **options)
        if context.method_name == "__call__" and isinstance(context.module, nn.Dropout):
            dropped.append((path, out))
        return out

    def run(variables, images, key):
        return apply(variables, images, **_mode(variables, key, True))

    with nn.intercept_methods(note):
        jax.eval_shape(run, variables, images, jax.eval_shape(lambda: jax.random.key(0)))
    if len(cuts) != 1 or [place for place, _ in dropped].count(cuts[0]) > 1:
        raise Entangled(f"the network does not call {head!r} once")
    return cuts[0]


class _Reached(Exception):
    pass


def _until(apply, cut: str, variables, images, **options):
    found = []

    def stop(call, arguments, others, context):
        if context.method_name == "__call__" and "/".join(context.module.path) == cut:
            found.append(arguments[0])
            raise _Reached
        return call(*arguments, **others)

    with nn.intercept_methods(stop), contextlib.suppress(_Reached):
        apply(variables, images, **options)
    return found[0]


def _since(apply, cut: str, blank, variables, features, **options):
    """apply, with the argument of the submodule `cut` replaced; the compiler drops what led to it.
    By that a dropout draws what it draws in the whole network."""
    def replace(call, arguments, others, context):
        if context.method_name == "__call__" and "/".join(context.module.path) == cut:
            arguments = (features, *arguments[1:])
        return call(*arguments, **others)

    with nn.intercept_methods(replace):
        return apply(variables, blank, **options)
