"""Optimizers, schedules, masks: trajectories against torch's formulas, written out in numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imgcls_jax import optim, tree
from imgcls_jax.errors import ConfigError

RNG = np.random.default_rng(0)
PARAMS = {"stem": {"kernel": RNG.normal(size=(3, 4)), "bias": RNG.normal(size=4)},
          "head": {"kernel": RNG.normal(size=(4, 2))}}
STEPS, BATCH = 12, 512
SGD, ADAMW = dict(name="sgd", momentum=0.9), dict(name="adamw", b1=0.8, b2=0.95, eps=1e-3)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def config(optimizer=SGD, *, decay=None, schedule=None, clip=None, freeze=()):
    return dict(optimizer=optimizer, weight_decay=decay, clip=clip, freeze=freeze, ema=None,
                schedule=schedule or dict(name="cosine", base=0.1, warmup=3), batch_size=BATCH)


def gradient(params, step):
    """That of a bowl which turns with the step, so that no two gradients are alike."""
    return jax.tree.map(lambda x: np.asarray(x) * (1 + 0.3 * np.sin(step)) + np.cos(step), params)


def trajectory(config, steps=STEPS):
    optimizer, rate, _ = optim.build(config, PARAMS, STEPS)
    params, state = PARAMS, optimizer.init(PARAMS)
    for step in range(steps):
        updates, state = optimizer.update(gradient(params, step), state, params)
        params = optax.apply_updates(params, updates)
    return params, [float(rate(step)) for step in range(steps)], state


def numpy_cosine(step, warmup=3, base=0.1):
    if step < warmup:
        return base * step / warmup
    return base * (1 + math.cos(math.pi * (step - warmup) / (STEPS - warmup))) / 2


def torch_sgd(rates, *, momentum, nesterov=False, coupled=0.0):
    """torch.optim.SGD, as its documentation writes it."""
    params, buffer = PARAMS, jax.tree.map(np.zeros_like, PARAMS)
    for step, rate in enumerate(rates):
        g = jax.tree.map(lambda g, p: g + coupled * p, gradient(params, step), params)
        buffer = jax.tree.map(lambda b, g: momentum * b + g, buffer, g)
        d = jax.tree.map(lambda b, g: g + momentum * b, buffer, g) if nesterov else buffer
        params = jax.tree.map(lambda p, d, rate=rate: p - rate * d, params, d)
    return params


def torch_adamw(rates, decays, *, b1=0.8, b2=0.95, eps=1e-3, decayed=".*"):
    """torch.optim.AdamW, but for the step's factor of the decay, given apart."""
    params = PARAMS
    m = v = jax.tree.map(np.zeros_like, PARAMS)
    mask = tree.match(decayed, PARAMS)
    for t, (rate, decay) in enumerate(zip(rates, decays, strict=True), 1):
        g = gradient(params, t - 1)
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, g)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, g)

        def new(p, m, v, decayed, t=t, rate=rate, decay=decay):
            direction = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
            return p - decay * p * decayed - rate * direction

        params = jax.tree.map(new, params, m, v, mask)
    return params


def assert_same(a, b, rtol=1e-10, atol=0.0):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


# ---- optimizers and decay -------------------------------------------------------------------


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("coupled", [0.0, 0.2])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_torchs(momentum, nesterov, coupled):
    if nesterov and not momentum:
        momentum = 0.5  # torch refuses Nesterov without momentum
    decay = dict(value=coupled, mode="coupled")
    found, rates, _ = trajectory(config(dict(name="sgd", momentum=momentum, nesterov=nesterov),
                                        decay=decay))
    np.testing.assert_allclose(rates, [numpy_cosine(step) for step in range(STEPS)], rtol=1e-12)
    assert_same(found, torch_sgd(rates, momentum=momentum, nesterov=nesterov, coupled=coupled))


def test_decay_times_the_rate_is_torchs_adamw():
    found, rates, _ = trajectory(config(ADAMW, decay=dict(value=0.3, mode="times_lr")))
    assert_same(found, torch_adamw(rates, [0.3 * rate for rate in rates]))


def test_decay_times_the_schedule_does_not_know_the_peak():
    found, rates, _ = trajectory(config(ADAMW, decay=dict(value=0.02, mode="times_schedule")))
    assert_same(found, torch_adamw(rates, [0.02 * rate / 0.1 for rate in rates]))


def test_decay_reaches_the_parameters_it_names_alone():
    decay = dict(value=0.3, mode="times_lr", on=".*/kernel")
    found, rates, _ = trajectory(config(ADAMW, decay=decay))
    assert_same(found, torch_adamw(rates, [0.3 * r for r in rates], decayed=".*kernel"))


def test_the_first_moment_can_be_kept_in_bfloat16():
    _, _, state = trajectory(config(dict(name="adamw", mu_dtype="bfloat16")), 1)
    dtypes = {path: leaf.dtype for path, leaf in tree.flatten(state).items()}
    assert {d.name for p, d in dtypes.items() if "/mu/" in p} == {"bfloat16"}
    assert {d.name for p, d in dtypes.items() if "/nu/" in p} == {"float64"}


# ---- schedules ------------------------------------------------------------------------------


def rates(schedule, total=100):
    _, rate, _ = optim.build(config(schedule=schedule), PARAMS, total)
    return np.array([float(rate(step)) for step in range(total + 1)])


def test_linear_scaling_is_by_the_batch():
    assert rates(dict(name="constant", base=0.1, per=256))[7] == pytest.approx(0.1 * BATCH / 256)
    assert rates(dict(name="constant", base=0.1))[7] == pytest.approx(0.1)


def test_cosine_falls_from_the_peak_to_the_floor():
    expected = 0.2 * (0.1 + 0.9 * (1 + np.cos(np.pi * np.arange(101) / 100)) / 2)
    np.testing.assert_allclose(rates(dict(name="cosine", base=0.2, floor=0.1)), expected, rtol=1e-12)


def test_linear_falls_from_the_peak_to_the_floor():
    expected = 0.2 * np.linspace(1, 0.5, 101)
    np.testing.assert_allclose(rates(dict(name="linear", base=0.2, floor=0.5)), expected, rtol=1e-12)


def test_steps_fall_at_their_boundaries():
    found = rates(dict(name="step", base=0.2, boundaries=(30, 60), factor=0.1))
    expected = 0.2 * np.array([1.0] * 30 + [0.1] * 30 + [0.01] * 41)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_warm_up_rises_to_the_peak_and_the_schedule_begins_there():
    found = rates(dict(name="cosine", base=0.2, warmup=20, warmup_start=0.25))
    np.testing.assert_allclose(found[:21], 0.2 * np.linspace(0.25, 1, 21), rtol=1e-12)
    after = 0.2 * (1 + np.cos(np.pi * np.arange(81) / 80)) / 2
    np.testing.assert_allclose(found[20:], after, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("warmup", [None, 0])
def test_without_warm_up_the_first_step_has_the_peak(warmup):
    assert rates(dict(name="cosine", base=0.2, warmup=warmup))[0] == pytest.approx(0.2)


def test_boundaries_are_counted_from_the_end_of_the_warm_up():
    found = rates(dict(name="step", base=1.0, warmup=10, boundaries=(30,)))
    assert found[39] == pytest.approx(1.0) and found[40] == pytest.approx(0.1)


@pytest.mark.parametrize("schedule, words", [
    (dict(name="cosine", base=0.1, warmup=100), ("warm-up of 100", "run of 100")),
    (dict(name="cosin", base=0.1), ("'cosin'", "'cosine'")),
    (dict(name="cosine"), ("needs base", "config.schedule")),
    (dict(name="cosine", base=0.1, boundaries=(1,)), ("'boundaries'",)),
])
def test_a_wrong_schedule_is_refused(schedule, words):
    with pytest.raises(ConfigError) as caught:
        rates(schedule)
    assert all(word in str(caught.value) for word in words), caught.value


# ---- clipping, freezing, averaging ----------------------------------------------------------


def first_update(**chosen):
    params, _, _ = trajectory(config(dict(name="sgd", momentum=0.0),
                                     schedule=dict(name="constant", base=1.0), **chosen), 1)
    return jax.tree.map(lambda before, after: before - after, PARAMS, params)


def test_clipping_by_norm_scales_the_whole_gradient():
    g = gradient(PARAMS, 0)
    norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(g)))
    assert norm > 1
    assert_same(first_update(clip=dict(norm=1.0)), jax.tree.map(lambda x: x / norm, g))
    assert_same(first_update(clip=dict(norm=2 * norm)), g)


def test_clipping_by_value_cuts_each_entry():
    assert_same(first_update(clip=dict(value=0.3)),
                jax.tree.map(lambda x: np.clip(x, -0.3, 0.3), gradient(PARAMS, 0)))


def test_decay_is_not_clipped():
    g = gradient(PARAMS, 0)
    found = first_update(clip=dict(value=0.3), decay=dict(value=2.0, mode="coupled"))
    assert_same(found, jax.tree.map(lambda g, p: np.clip(g, -0.3, 0.3) + 2 * p, g, PARAMS))


@pytest.mark.parametrize("mode", ["coupled", "times_lr", "times_schedule"])
def test_frozen_parameters_stay_and_have_no_optimizer_state(mode):
    chosen = dict(optimizer=ADAMW, decay=dict(value=0.3, mode=mode, on=".*kernel"))
    found, _, state = trajectory(config(**chosen, freeze=("stem/.*",), clip=dict(norm=1.0)))
    assert_same(found["stem"], PARAMS["stem"], rtol=0)
    assert not np.allclose(found["head"]["kernel"], PARAMS["head"]["kernel"])
    moments = [path for path in tree.flatten(state) if "/mu/" in path or "/nu/" in path]
    assert len(moments) == 2 and all(path.endswith("head/kernel") for path in moments)


def test_the_gradient_of_frozen_parameters_does_not_clip_the_others():
    g = gradient(PARAMS, 0)["head"]["kernel"]
    found = first_update(freeze=("stem/.*",), clip=dict(norm=1.0))["head"]["kernel"]
    np.testing.assert_allclose(found, g / np.linalg.norm(g), rtol=1e-10)


@pytest.mark.parametrize("chosen, where", [
    (dict(freeze=("stem/.*", "stme/.*")), "config.freeze"),
    (dict(decay=dict(value=0.1, on="kernel")), "config.weight_decay.on"),
    (dict(freeze=("stem/(",)), "config.freeze"),
])
def test_a_pattern_that_matches_nothing_is_refused(chosen, where):
    with pytest.raises(ConfigError) as caught:
        optim.build(config(**chosen), PARAMS, STEPS)
    assert caught.value.where == where


def test_a_moving_average_is_the_sum_of_weighted_values():
    update, average = optim.ema(decay=0.9), {"x": np.array(5.0)}
    values = RNG.normal(size=8)
    for t, value in enumerate(values, 1):
        average = update(average, {"x": value}, t)
    weights = 0.1 * 0.9 ** np.arange(8)[::-1]
    np.testing.assert_allclose(average["x"], weights @ values + 0.9**8 * 5, rtol=1e-10)


def test_warm_up_of_the_average_forgets_the_beginning():
    update, average = optim.ema(decay=0.5, warmup=True), {"x": jnp.array(5.0)}
    expected = 5.0
    for t in range(1, 15):
        rate = min(0.5, (1 + t) / (10 + t))  # 0.5 from t = 8 on
        expected = rate * expected + (1 - rate) * t
        average = update(average, {"x": jnp.array(float(t))}, jnp.asarray(t, jnp.int32))
    np.testing.assert_allclose(average["x"], expected, rtol=1e-12)


def test_clipping_without_a_bound_is_refused():
    with pytest.raises(ConfigError, match="no bound"):
        first_update(clip={})
