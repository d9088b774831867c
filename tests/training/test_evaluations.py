"""Which evaluation is the best, and when to stop: a value that is not finite is never the best."""

import math
from types import SimpleNamespace

import pytest

from imgcls_jax.training.evaluations import Evaluations, best_row
from imgcls_jax.types import StopOptions

NAN, INF = math.nan, math.inf


def history(*values):
    return [{"step": 10 * (i + 1), "test/loss": value} for i, value in enumerate(values)]


@pytest.mark.parametrize("values, mode, last, first", [
    ((0.5, 0.7, 0.7, 0.6), "max", 30, 20),
    ((0.5, 0.3, 0.3), "min", 30, 20),
    ((NAN, 0.7, 0.6), "max", 20, 20),
    ((NAN, 0.7, 0.6), "min", 30, 30),
    ((INF, 0.7), "max", 20, 20),
    ((0.7, -INF, NAN), "min", 10, 10),
    ((NAN, INF), "max", None, None),
    ((), "max", None, None)])
def test_the_best_row_is_of_a_finite_number(values, mode, last, first):
    rows = [{"step": 5, "train/loss": 9.0}, *history(*values)]
    for tie, expected in ((max, last), (min, first)):
        found = best_row(rows, "test/loss", mode, tie=tie)
        assert (found and found["step"]) == expected


@pytest.mark.parametrize("values, ends", [
    ((0.5, 0.4), None),  # one evaluation without a rise, of two that are waited for
    ((0.5, 0.4, 0.5), "has not risen since step 10"),
    ((NAN, 0.4, 0.3), None),
    ((NAN, 0.4, 0.3, 0.2), "has not risen since step 20"),
    ((NAN, NAN), None),
    ((NAN, NAN, NAN), "is not a finite number since step 10"),
    ((0.5, NAN, NAN), "has not risen since step 10"),
    ((), None)])
def test_patience_ends_that_many_steps_after_the_best(values, ends):
    rows = history(*values)
    stop = StopOptions(metric="test/loss", patience=20, mode="max")
    run = SimpleNamespace(stop=stop)
    found = Evaluations(run, None, rows).patience_ended(10 * len(values))
    assert found == (ends and f"test/loss {ends}")
