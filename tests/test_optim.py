"""Optimizers, schedules, masks: trajectories against torch's formulas, written out in numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imgcls_jax import optim, tree
from imgcls_jax.assembly import learning
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
    optimizer, rate, _ = learning.optimizer(config, PARAMS, STEPS)
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
    _, rate, _ = learning.optimizer(config(schedule=schedule), PARAMS, total)
    return np.asarray(jax.vmap(rate)(np.arange(total + 1)))


def test_linear_scaling_is_by_the_batch():
    assert rates(dict(name="constant", base=0.1, per=256))[7] == pytest.approx(0.1 * BATCH / 256)
    assert rates(dict(name="constant", base=0.1))[7] == pytest.approx(0.1)


def test_cosine_falls_from_the_peak_to_the_floor():
    expected = 0.2 * (0.1 + 0.9 * (1 + np.cos(np.pi * np.arange(101) / 100)) / 2)
    found = rates(dict(name="cosine", base=0.2, floor=0.1))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_linear_falls_from_the_peak_to_the_floor():
    expected = 0.2 * np.linspace(1, 0.5, 101)
    found = rates(dict(name="linear", base=0.2, floor=0.5))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


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
    (dict(name="cosine", base=0.1, warmup=100), ("warm-up (100", "run (100")),
    (dict(name="cosine", base=0.1, warmup=60, cooldown=41), ("warm-up (60", "cooldown (41")),
    (dict(name="cosine", base=0.1, hold=101), ("held", "(101", "run (100")),
    (dict(name="step", base=0.1, boundaries=(30, 100)), ("boundary after 100", "schedule of 100")),
    (dict(name="step", base=0.1, warmup=20, boundaries=(80,)), ("after 80", "schedule of 80")),
    (dict(name="exponential", base=0.1, every=100, factor=0.9), ("every 100", "schedule of 100")),
    (dict(name="plateau", base=0.1, every=10, patience=9), ("patience of 9", "schedule of 100")),
    (dict(name="one_cycle", base=0.1, rise=0.01), ("rise=0.01", "schedule of 100")),
    (dict(name="cosin", base=0.1), ("'cosin'", "'cosine'")),
    (dict(name="cosine"), ("needs base", "config.schedule")),
    (dict(name="cosine", base=0.1, boundaries=(1,)), ("'boundaries'",)),
])
def test_a_wrong_schedule_is_refused(schedule, words):
    with pytest.raises(ConfigError) as caught:
        rates(schedule)
    assert all(word in str(caught.value) for word in words), caught.value


def test_the_rate_of_a_plateau_is_found_in_any_state_of_an_optimizer():
    schedule = dict(name="plateau", base=0.1, every=2, patience=0, factor=0.5)
    chosen = config(dict(name="muon"), decay=dict(value=0.1), schedule=schedule)
    chosen["freeze"] = ("head/.*",)
    optimizer, rate, _ = learning.optimizer(chosen, PARAMS, STEPS)
    state, found, update = optimizer.init(PARAMS), [], jax.jit(optimizer.update)
    for step, loss in enumerate((3.0, 3.0, 4.0, 3.0, 2.0, 2.0, 2.0)):
        found.append(float(rate(step, state)))
        _, state = update(gradient(PARAMS, step), state, PARAMS, value=loss)
    np.testing.assert_allclose(found, [0.1] * 4 + [0.05] * 2 + [0.05])
    assert float(rate(0)) == 0.1


# ---- factors by name ------------------------------------------------------------------------


def first_update(optimizer=None, **chosen):
    params, _, _ = trajectory(config(optimizer or dict(name="sgd", momentum=0.0),
                                     schedule=dict(name="constant", base=1.0), **chosen), 1)
    return jax.tree.map(lambda before, after: before - after, PARAMS, params)


def factors(**shared):
    """Of the learning rate of each parameter, from one step of plain descent."""
    changed = first_update(optimizer=dict(name="sgd", momentum=0.0, **shared))
    of = jax.tree.map(lambda a, b: np.unique(np.round(a / b, 10)), changed, gradient(PARAMS, 0))
    return {path: value.item() for path, value in tree.flatten(of).items()}


def test_the_first_pattern_that_matches_sets_the_rate():
    found = factors(rates=(("head/.*", 10.0), (".*/kernel", 0.5)))
    assert found == {"head/kernel": 10.0, "stem/kernel": 0.5, "stem/bias": 1.0}


def test_decay_has_the_rate_of_its_parameter_and_a_factor_of_its_own():
    chosen = dict(name="sgd", momentum=0.0, rates=(("head/.*", 10.0),))
    for mode, of_head in (("coupled", 10.0), ("times_lr", 10.0), ("times_schedule", 1.0)):
        decay = dict(value=0.3, mode=mode, factors=(("stem/bias", 0.0), ("stem/.*", 2.0)))
        plain, decayed = (first_update(optimizer=chosen, decay=one) for one in (None, decay))
        expected = {"stem": {"kernel": 0.6 * PARAMS["stem"]["kernel"],
                             "bias": 0.0 * PARAMS["stem"]["bias"]},
                    "head": {"kernel": 0.3 * of_head * PARAMS["head"]["kernel"]}}
        assert_same(jax.tree.map(np.subtract, decayed, plain), expected, atol=1e-12)


def named(*tops):
    return {top: {"kernel": np.ones(2)} for top in tops}


@pytest.mark.parametrize("tops", [
    (("stem_conv", "patches", "positions"), ("block0",), ("block1",), ("norm", "head")),
    (("stem_conv", "stem_norm"), ("stage0_block0",), ("stage0_block1",),
     ("stage1_norm", "stage1_conv", "stage1_block0"), ("last_conv", "hidden", "head")),
    (("stem_conv",), ("block0_layer0",), ("block0_layer1",),
     ("transition0", "block1_layer0"), ("norm", "head")),
    ((), ("stage0_conv0",), ("stage1_conv0",), ("stage1_conv1",), ("fc0", "fc1", "head")),
    (("patches",), *((f"block{i}",) for i in range(12)), ("norm", "head")),
])
def test_depth_is_counted_in_blocks(tops):
    params = named(*(top for group in tops for top in group))
    found, last = optim.depths(params)
    assert last == len(tops) - 1
    assert found == {f"{top}/kernel": depth for depth, group in enumerate(tops) for top in group}


def test_layer_decay_is_beits():
    """0.75 ^ (12 + 1 - i) for the i-th of 12 blocks, counted from 1; the head has 1."""
    params = named("patches", *(f"block{i}" for i in range(12)), "norm", "head")
    chosen = config(dict(name="sgd", momentum=0.0, layer_decay=0.75, rates=(("norm/.*", 3.0),)),
                    schedule=dict(name="constant", base=1.0))
    optimizer = learning.optimizer(chosen, params, STEPS).transformation
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    found = {top: -leaf["kernel"][0] for top, leaf in updates.items()}
    expected = {f"block{i}": 0.75 ** (12 - i) for i in range(12)}
    expected |= {"patches": 0.75**13, "norm": 3.0, "head": 1.0}
    assert found == pytest.approx(expected, rel=1e-12)


# ---- clipping, freezing, averaging ----------------------------------------------------------


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
    (dict(decay=dict(value=0.1, factors=(("tail/.*", 2.0),))), "config.weight_decay.factors"),
    (dict(optimizer=dict(name="sgd", rates=(("tail/.*", 2.0),))), "config.optimizer.rates"),
    (dict(clip=dict(adaptive=0.1, skip="tail/.*")), "config.clip.skip"),
])
def test_a_pattern_that_matches_nothing_is_refused(chosen, where):
    with pytest.raises(ConfigError) as caught:
        learning.optimizer(config(**chosen), PARAMS, STEPS)
    assert caught.value.where == where


@pytest.mark.parametrize("chosen, where, words", [
    (dict(optimizer=dict(name="adamw", beta1=0.9)), "config.optimizer.beta1", "no argument"),
    (dict(optimizer=dict(name="sgd", form="keras")), "config.optimizer.form", "keras"),
    (dict(optimizer=dict(name="sgd", rates=("head/.*",))), "config.optimizer.rates", "not a pair"),
    (dict(optimizer=dict(name="sgd", layer_decay=0.5)), "config.optimizer.layer_decay",
     "not in blocks"),
    (dict(optimizer=dict(momentum=0.5)), "config.optimizer", "name"),
])
def test_a_wrong_optimizer_is_refused(chosen, where, words):
    with pytest.raises(ConfigError, match=words) as caught:
        learning.optimizer(config(**chosen), PARAMS, STEPS)
    assert caught.value.where == where


def test_adaptive_clipping_leaves_out_what_it_is_told_to():
    g, found = gradient(PARAMS, 0), first_update(clip=dict(adaptive=0.01, skip="head/.*"))
    assert_same(found["head"], g["head"])
    norms = [np.linalg.norm(x["stem"]["kernel"], axis=0) for x in (found, PARAMS)]
    np.testing.assert_allclose(norms[0], 0.01 * norms[1], rtol=1e-10)


def test_schedule_free_needs_no_other_average_and_evaluates_what_is_frozen_as_it_is():
    chosen = config(dict(name="schedule_free"), freeze=("stem/.*",))
    with pytest.raises(ConfigError, match="keeps an average itself") as caught:
        learning.optimizer(chosen | dict(ema=dict(decay=0.9)), PARAMS, STEPS)
    assert caught.value.where == "config.ema"
    optimizer, _, average = learning.optimizer(chosen, PARAMS, STEPS)
    found = average(None, {"params": PARAMS, "model_state": {"x": 1}}, 1, optimizer.init(PARAMS))
    assert found["model_state"] == {"x": 1}
    assert_same(found["params"], PARAMS)


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
    with pytest.raises(ConfigError, match="sets neither"):
        first_update(clip={})
