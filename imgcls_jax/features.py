"""Reading what happens inside a model, and freezing parts of it, without changing its code."""

import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

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
