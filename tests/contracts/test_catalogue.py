"""Every published weight of a registered model fits it, as far as is known without the file."""

import functools

import jax
import jax.numpy as jnp
import pytest

from imgcls_jax.models import MODELS
from imgcls_jax.pretrained import catalogue


@functools.cache
def parameters(model: str, size: int) -> int:
    """Their number for images of another size than the model's own."""
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    module = MODELS.get(model)(1000)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def members():
    """Every model; where variables must be traced, those beyond the least of a file are nightly."""
    seen = set()
    for model in sorted(catalogue.models(), key=lambda name: MODELS.facts(name)["params"]):
        file, params = MODELS.get(model).__module__, MODELS.facts(model)["params"]
        traced = any(weights.params != params for weights in catalogue.weights(model).values())
        yield pytest.param(model, marks=pytest.mark.nightly if traced and file in seen else ())
        seen |= {file} if traced else set()


@pytest.mark.parametrize("model", list(members()))
def test_weights_have_a_known_layout_and_as_many_parameters_as_the_model(model):
    facts = MODELS.facts(model)
    for tag, weights in catalogue.weights(model).items():
        assert weights.layout in facts["layouts"], tag
        if weights.params != facts["params"]:  # a table of positions goes with the size
            assert weights.image_size != facts["image_size"], tag
            assert parameters(model, weights.image_size) == weights.params, tag


def test_no_model_of_the_catalogue_is_unknown():
    assert set(catalogue.models()) <= set(MODELS.names())
