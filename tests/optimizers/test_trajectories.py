"""Ten steps in f64 against those of torch, timm, schedulefree and TensorFlow, as recorded by
experiments/parity/optimizers.py."""

from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from experiments.parity import trajectories
from imgcls_jax import tree
from imgcls_jax.assembly import learning

FIXTURES = {which: np.load(Path(__file__).parent / "fixtures" / f"{which}.npz")
            for which in ("torch", "tensorflow")}
AXES = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}  # ours of torch's
BACK = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
APART = "times_lr"
TF = dict(name="rmsprop", decay=0.9, eps=1e-3, momentum=0.9)
BIG_VISION = dict(name="adafactor", mu_dtype=None, min_size=4)
CASES = {  # case -> (optimizer, mode of the decay or None: as published)
    "sgd": (dict(name="sgd"), None),
    "sgd nesterov": (dict(name="sgd", nesterov=True), None),
    "sgd without momentum": (dict(name="sgd", momentum=0.0), None),
    "adam": (dict(name="adam", b1=0.8, b2=0.95), None),
    "adamw": (dict(name="adamw", b1=0.8, b2=0.95, eps=1e-3), None),
    "rmsprop": (dict(name="rmsprop", form="torch", decay=0.9, eps=0.0316, momentum=0.9), None),
    "rmsprop tensorflow": (TF, None),
    "rmsprop tensorflow, rate outside": (TF | dict(lr_in_momentum=False), None),
    "rmsprop tensorflow, decay apart": (TF, APART),
    "lamb": (dict(name="lamb"), None),
    "lamb, clipped": (dict(name="lamb"), None),
    "lamb, all": (dict(name="lamb", adapt="all"), None),
    "lars": (dict(name="lars", trust=0.02), None),
    "lars nesterov, all": (dict(name="lars", trust=0.02, nesterov=True, adapt="all"), None),
    "lion": (dict(name="lion"), None),
    "adafactor": (BIG_VISION, APART),
    "adafactor, clipped": (BIG_VISION | dict(clipping=0.7), APART),
    "adafactor, decay by the schedule": (BIG_VISION, None),
    "adafactor without momentum": (BIG_VISION | dict(momentum=None), APART),
    "schedule_free": (dict(name="schedule_free", b1=0.9, b2=0.95, eps=1e-3), None),
    "schedule_free sgd": (dict(name="schedule_free", base="sgd", b1=0.8), None),
    "muon": (dict(name="muon", adamw_rate=0.1), None),
    "muon, as AdamW": (dict(name="muon", adamw_rate=0.1, adjust="match_rms_adamw",
                            nesterov=False), None),
}
TENSORFLOW = {
    "rmsprop": (TF, None),
    "sgd paper": (dict(name="sgd", form="paper"), None),
    "sgd paper nesterov": (dict(name="sgd", form="paper", nesterov=True), None),
}


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def ours(flat: dict) -> dict:
    """Tensors by name as torch has them -> a tree as ours is."""
    nested: dict = {}
    for name, value in flat.items():
        *modules, leaf = name.split("/")
        place = nested
        for module in modules:
            place = place.setdefault(module, {})
        place[leaf] = np.transpose(value, AXES[np.ndim(value)])
    return nested


def theirs(params) -> dict:
    return {name: np.transpose(value, BACK[np.ndim(value)])
            for name, value in tree.flatten(params).items()}


def config(optimizer, mode=None, clip=None):
    return dict(optimizer=optimizer, batch_size=1, clip=clip, freeze=(), ema=None,
                weight_decay=dict(value=trajectories.DECAY, on=".*kernel", mode=mode),
                schedule=dict(name="linear", base=trajectories.PEAK,
                              floor=trajectories.LAST / trajectories.PEAK))


def run(config) -> dict:
    """As experiments/parity/optimizers.py has its runs."""
    params = ours(trajectories.parameters())
    optimizer, rate, average = learning.optimizer(config, params, trajectories.STEPS)
    state, found = optimizer.init(params), {}
    update = jax.jit(lambda *given: optimizer.update(*given, value=0.0))
    for step in range(trajectories.STEPS):
        np.testing.assert_allclose(rate(step), trajectories.rate(step), rtol=1e-14)
        gradients = ours({name: trajectories.gradient(name, value, step)
                          for name, value in theirs(params).items()})
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        if step + 1 in trajectories.KEPT:
            found |= {f"{name} at {step + 1}": value for name, value in theirs(params).items()}
    if average:
        evaluated = average(None, {"params": params}, trajectories.STEPS, state)["params"]
        found |= {f"{name} evaluated": value for name, value in theirs(evaluated).items()}
    return found


def assert_same(found: dict, which: str, case: str):
    fixture = FIXTURES[which]
    recorded = {name.removeprefix(f"{case}: "): fixture[name] for name in fixture.files
                if name.startswith(f"{case}: ")}
    assert recorded.keys() == found.keys()
    for name, value in recorded.items():
        error = np.linalg.norm(found[name] - value)
        assert error <= 1e-9 * np.linalg.norm(value), (name, error / np.linalg.norm(value))


def cases():
    """All of them; beyond the first of each optimizer they are nightly."""
    seen = set()
    for case, (optimizer, _) in CASES.items():
        name = optimizer["name"]
        yield pytest.param(case, marks=pytest.mark.nightly if name in seen else ())
        seen.add(name)


@pytest.mark.parametrize("case", list(cases()))
def test_ten_steps_are_those_of_torch_and_timm(case):
    optimizer, mode = CASES[case]
    clip = dict(norm=1.0) if case.endswith("clipped") and optimizer["name"] == "lamb" else None
    assert_same(run(config(optimizer, mode, clip)), "torch", case)


@pytest.mark.parametrize("case", TENSORFLOW)
def test_ten_steps_are_those_of_tensorflow(case):
    assert_same(run(config(*TENSORFLOW[case])), "tensorflow", case)


def test_adaptive_clipping_is_timms():
    params = ours(trajectories.parameters())
    gradients = ours({name: trajectories.gradient(name, value, 0)
                      for name, value in trajectories.parameters().items()})
    chosen = config(dict(name="sgd", momentum=0.0), clip=dict(adaptive=0.5)) | dict(
        weight_decay=None, schedule=dict(name="constant", base=1.0))
    optimizer = learning.optimizer(chosen, params, 1).transformation
    updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(params), params)
    clipped = {f"{name} gradient": -value for name, value in theirs(updates).items()}
    assert any(not np.allclose(a, b) for a, b in zip(
        clipped.values(), theirs(gradients).values(), strict=True))
    assert_same(clipped, "torch", "adaptive clipping")
