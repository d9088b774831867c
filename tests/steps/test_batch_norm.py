"""Re-estimated statistics against numpy's means and variances of each batch."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest

from imgcls_jax.errors import ConfigError
from imgcls_jax.layers.norm import BatchNorm
from imgcls_jax.steps.batch_norm import batch_norm
from tests.steps import test_supervised
from tests.steps.test_supervised import BATCH, Net, close, equal, pixels

RNG = np.random.default_rng(7)
BATCHES = [BATCH | {"image": RNG.integers(0, 256, (12, 2, 2, 1), np.uint8)} for _ in range(3)]
make = functools.partial(test_supervised.make, step=batch_norm)


class Deep(nn.Module):
    """Two layers of different momentum, under remat as deep models may be."""

    @nn.compact
    def __call__(self, x, train=False):
        x = x.reshape(len(x), -1)
        x = BatchNorm(momentum=0.9, name="first")(x, train)
        x = nn.remat(BatchNorm, static_argnums=(2,))(momentum=0.99, name="second")(
            nn.relu(nn.Dense(6, name="dense")(x)), train)
        return nn.Dense(5, name="head")(x)


def expected(values):
    """Mean over the batches of the mean, and of the unbiased variance, of each."""
    return {"mean": np.mean([v.mean(0) for v in values], 0),
            "var": np.mean([v.var(0, ddof=1) for v in values], 0)}


def test_statistics_are_the_means_over_all_batches():
    step, state = make(Deep())
    first = state
    for batch in BATCHES:
        state, sums = step(state, batch)
        assert sums["nonfinite"] == 0 and sums["steps"] == 1 and sums["seen"] == 12
    inputs = [pixels(batch) for batch in BATCHES]
    found = state.model_state["batch_stats"]
    close(found["first"], expected(inputs))
    params = jax.tree.map(np.float64, state.params)
    hidden = []
    for x in inputs:
        x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
        x = x * params["first"]["scale"] + params["first"]["bias"]
        hidden.append(np.maximum(x @ params["dense"]["kernel"] + params["dense"]["bias"], 0))
    close(found["second"], expected(hidden), rtol=1e-4)
    assert equal(state.params, first.params) and equal(state.opt_state, first.opt_state)
    assert state.step == 3


def test_what_they_were_before_has_no_part_in_it():
    step, state = make(Net(norm=True))
    other = state.replace(model_state=jax.tree.map(lambda leaf: leaf + 1000.0, state.model_state))
    close(step(state, BATCH)[0].model_state, step(other, BATCH)[0].model_state)


def test_what_is_evaluated_has_them_too():
    step, state = make(Net(norm=True), ema=lambda *_: None)
    new, _ = step(state, BATCH)
    assert equal(new.ema, {"params": state.params, "model_state": new.model_state})


def test_a_model_without_batch_norm_is_refused():
    step, state = make(Net())
    with pytest.raises(ConfigError, match="no BatchNorm"):
        step(state, BATCH)
