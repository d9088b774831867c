"""What a registered model has, as shapes: each is traced once, for whichever tests read it."""

import functools
import inspect

import jax
import jax.numpy as jnp

from imgcls_jax.models import MODELS


def init(model: str, **arguments):
    """(logits, variables) of two images of the model's own size, computed in bfloat16."""
    bound = inspect.signature(MODELS.get(model)).bind(
        MODELS.facts(model).get("classes", 1000), **{"dtype": "bfloat16", **arguments})
    bound.apply_defaults()
    return _init(model, *bound.args, **bound.kwargs)


@functools.cache
def _init(model, *args, **kwargs):
    facts = MODELS.facts(model)
    size, channels = facts["image_size"], facts.get("channels", 3)
    images = jax.ShapeDtypeStruct((2, size, size, channels), jnp.bfloat16)
    module = MODELS.get(model)(*args, **kwargs)
    return jax.eval_shape(module.init_with_output, jax.random.key(0), images)
