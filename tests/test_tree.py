"""Paths, masks, counts and differences of pytrees."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imgcls_jax import tree
from imgcls_jax.types import TrainState

PARAMS = {"head": {"kernel": jnp.zeros((3, 4)), "bias": jnp.zeros(4)}, "stem": [jnp.zeros(2)]}


def test_paths_name_dicts_lists_and_optimizer_states():
    state = TrainState(jnp.zeros((), jnp.int32), PARAMS, {}, optax.adam(1.0).init(PARAMS))
    paths = tree.flatten(state)
    assert "params/head/kernel" in paths and "params/stem/0" in paths
    assert "opt_state/0/mu/head/bias" in paths and "step" in paths


def test_unflatten_undoes_flatten():
    leaves = {path: i for i, path in enumerate(tree.flatten(PARAMS))}
    assert tree.flatten(tree.unflatten(leaves, PARAMS)) == leaves
    with pytest.raises(KeyError):
        tree.unflatten({}, PARAMS)


def test_a_pattern_matches_whole_paths():
    assert tree.flatten(tree.match(".*kernel", PARAMS)) == {
        "head/bias": False, "head/kernel": True, "stem/0": False}
    assert not any(tree.flatten(tree.match("kernel", PARAMS)).values())


def test_count_and_bytes():
    assert tree.count(PARAMS) == 12 + 4 + 2
    assert tree.size_bytes({"a": np.zeros((2, 3), np.float16)}) == 12


def test_a_difference_has_three_lists():
    other = {"head": {"kernel": jnp.zeros((3, 5)), "scale": jnp.zeros(4)}, "stem": PARAMS["stem"]}
    difference = tree.diff(PARAMS, other)
    assert difference.only_wanted == ("head/bias",) and difference.only_found == ("head/scale",)
    assert difference.differ == ("head/kernel: wanted float32[3,4], found float32[3,5]",)
    assert "head/bias" in str(difference) and "float32[3,5]" in str(difference)
    assert not tree.diff(PARAMS, PARAMS)


def test_a_difference_of_dtype_counts():
    assert tree.diff({"a": jnp.zeros(2)}, {"a": jnp.zeros(2, jnp.bfloat16)}).differ
