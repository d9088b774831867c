"""What holds for every registered model, from shapes alone."""

import jax
import jax.numpy as jnp
import pytest

from imgcls_jax.models import MODELS
from tests import abstract


def members():
    """Every model; beyond the least of each file they are nightly."""
    found, seen = [], set()
    for name in sorted(MODELS.names(), key=lambda name: MODELS.facts(name)["params"]):
        file = MODELS.get(name).__module__
        found.append(pytest.param(name, marks=pytest.mark.nightly if file in seen else ()))
        seen.add(file)
    return found


@pytest.mark.parametrize("name", members())
def test_parameters_are_exact_the_head_is_named_and_logits_are_float32(name):
    facts = MODELS.facts(name)
    classes = facts.get("classes", 1000)
    logits, variables = abstract.init(name)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == facts["params"]
    assert variables["params"][facts["head"]]["kernel"].shape[-1] == classes
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert logits.shape == (2, classes) and logits.dtype == jnp.float32
