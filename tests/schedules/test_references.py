"""Schedules value by value against timm's and torch's, as recorded by
experiments/parity/optimizers.py."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.parity import trajectories
from imgcls_jax.assembly import learning

FIXTURES = json.loads((Path(__file__).parent / "fixtures" / "schedules.json").read_text())
PEAK = 0.2
WARM = dict(warmup=10, warmup_start=0.1)  # timm's begin is a rate, ours a share of the peak
CASES = {
    "cosine, prefix": dict(name="cosine", floor=0.05, **WARM),
    "cosine": dict(name="cosine", floor=0.05, warmup_prefix=False, **WARM),
    "polynomial": dict(name="polynomial", power=0.5, floor=0.05, warmup_prefix=False, **WARM),
    "milestones": dict(name="step", boundaries=(14, 29), **WARM),  # timm: a step before it is due
    "rsqrt": dict(name="rsqrt", timescale=7, cooldown=12, **WARM),
    "torch cosine": dict(name="cosine", floor=0.05),
    "torch milestones": dict(name="step", boundaries=(15, 30)),
    "torch exponential": dict(name="exponential", every=1, factor=0.97),
    "torch polynomial": dict(name="polynomial", power=2.0),
    "torch linear": dict(name="linear", floor=0.25),
    "torch one cycle": dict(name="one_cycle"),
}


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def built(schedule, total=50):
    params = {"x": np.ones(1)}
    return learning.optimizer(dict(
        optimizer=dict(name="sgd", momentum=0.0), weight_decay=None, clip=None, freeze=(), ema=None,
        batch_size=1, schedule=schedule | dict(base=PEAK)), params, total)


def rates(schedule, total=50):
    return np.asarray(jax.vmap(built(schedule, total).rate)(np.arange(total)))


@pytest.mark.parametrize("case", CASES)
def test_the_rate_of_every_step_is_the_references(case):
    recorded = FIXTURES[case]
    np.testing.assert_allclose(rates(CASES[case])[:len(recorded)], recorded, rtol=1e-12, atol=1e-15)


def test_a_staircase_with_steps_of_no_whole_epoch_is_timms():
    # timm's 2.4 epochs of an epoch of 5 steps are our 12 steps, looked at once an epoch.
    schedule = dict(name="exponential", every=12, factor=0.97, staircase=True, hold=5, warmup=50,
                    warmup_start=0.1)
    np.testing.assert_allclose(rates(schedule, 250)[::5], FIXTURES["staircase"], rtol=1e-12)


def test_a_rate_that_stays_for_an_epoch_is_torchvisions():
    found = rates(dict(name="cosine", warmup=10, warmup_start=0.01, hold=5))
    np.testing.assert_allclose(found, np.repeat(FIXTURES["torchvision"], 5), rtol=1e-12)


def test_a_plateau_is_torchs():
    """Of periods of two steps, whose losses have the recorded mean."""
    schedule = dict(name="plateau", every=2, patience=2, factor=0.5, threshold=1e-3,
                    cooldown_periods=2, floor=0.2)
    optimizer, rate, _ = built(schedule, 100)
    params = {"x": np.ones(1)}
    state, found, update = optimizer.init(params), [], jax.jit(optimizer.update)
    for loss in trajectories.LOSSES:
        found.append(float(rate(len(found), state)))
        for part in (loss - 0.25, loss + 0.25):
            updates, state = update({"x": np.ones(1)}, state, params, value=part)
            np.testing.assert_allclose(updates["x"], -found[-1], rtol=1e-12)
    np.testing.assert_allclose(found, FIXTURES["torch plateau"], rtol=1e-12)
    assert len(set(found)) == 4


def test_a_cooldown_is_a_line_to_nothing_over_what_the_schedule_gives():
    plain, cooled = (rates(dict(name="cosine", **WARM) | more) for more in ({}, dict(cooldown=8)))
    factor = np.minimum(1.0, (50 - np.arange(50)) / 8)
    np.testing.assert_allclose(cooled, plain * factor, rtol=1e-12)


def test_big_visions_reciprocal_root_with_a_shift():
    found = rates(dict(name="rsqrt", timescale=9, shift=4, warmup=10, cooldown=10))
    steps = np.arange(50)
    expected = PEAK / np.sqrt(1 + (np.maximum(steps - 10, 0) + 4) / 9)
    expected *= np.minimum(1, (50 - steps) / 10)
    np.testing.assert_allclose(found[10:], expected[10:], rtol=1e-12)


def test_a_schedule_of_f32_steps_far_on_is_exact_to_its_digits():
    """Counts are exact in f32 up to 16 million."""
    with jax.enable_x64(False):
        rate = learning.optimizer(dict(
            optimizer=dict(name="sgd"), weight_decay=None, clip=None, freeze=(), ema=None,
            batch_size=1, schedule=dict(name="cosine", base=1.0)), {"x": np.ones(1)},
            1_000_000).rate
        for step in (1, 333_333, 999_000):
            expected = (1 + np.cos(np.pi * step / 1e6)) / 2
            assert float(rate(step)) == pytest.approx(expected, abs=1e-7)
