"""Every registered optimizer takes the steps of a Run, on any mesh, and decays where it is told."""

import jax
import numpy as np
import optax
import pytest

from imgcls_jax import assembly, tree
from imgcls_jax.assembly import learning
from imgcls_jax.optimizers import OPTIMIZERS
from imgcls_jax.parallel import transfer
from imgcls_jax.parallel.mesh import make_mesh
from imgcls_jax.parallel.rules import state_shardings

MESHES = {"1": (1, dict()), "2x4": (8, dict(data=2, fsdp=4))}
SIZE, BATCH, STEPS = 8, 16, 3
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
COMBINATIONS = [(precision, mesh, accumulate) for precision in ("f32", "bf16") for mesh in MESHES
                for accumulate in (1, 2)]
NAMES = OPTIMIZERS.names()


def config(choice, precision, mesh, accumulate, freeze=("positions",)):
    model = dict(name="vit_mini", patch_size=4, width=32, depth=1, heads=2, stem=())
    return {
        "seed": 0, "data": dict(name="synthetic", size=SIZE, classes=10), "transforms": (),
        "eval_transforms": (), "device_transforms": (), "model": model, "init": None,
        "task": "multiclass", "loss": dict(name="softmax"),
        "step": dict(name="supervised", accumulate=accumulate), "batch_size": BATCH,
        "total": dict(steps=STEPS), "optimizer": choice | dict(layer_decay=0.8),
        "schedule": dict(name="cosine", base=1e-3), "weight_decay": dict(value=1e-2),
        "clip": dict(norm=1.0), "freeze": freeze, "ema": None, "precision": precision,
        "mesh": mesh, "evals": {}, "checkpoint": dict(every=dict(steps=3)), "stop": None,
        "log": dict(every=dict(steps=1))}


DAILY = [("sgd", "bf16", "2x4", 2), ("schedule_free", "f32", "1", 2)]


def chosen():
    """A few combinations; nightly, in parts, all of them of every optimizer."""
    for name in NAMES:
        for combination in COMBINATIONS:
            daily = (name, *combination) in DAILY
            yield pytest.param(name, *combination, marks=(
                () if daily else pytest.mark.nightly(rotating=True)))


def trained(choice, precision, mesh, accumulate, **others):
    """(state before, after, Sums of each step)."""
    devices, sizes = MESHES[mesh]
    run = assembly.build(config(choice, precision, sizes, accumulate, **others),
                      devices=jax.devices()[:devices])
    state, sums, rng = run.init(), [], np.random.default_rng(0)
    first = jax.tree.map(np.asarray, state)
    where = jax.tree.map(lambda leaf: leaf.sharding, run.abstract_state)
    step = jax.jit(run.step, donate_argnums=0, out_shardings=(where, None), compiler_options=FAST)
    for _ in range(STEPS):
        batch = {"image": rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8),
                 "label": rng.integers(0, 10, BATCH).astype(np.int32),
                 "mask": np.ones(BATCH, np.float32)}
        state, found = step(state, transfer.to_device(batch, BATCH, run.mesh))
        sums.append(found)
    return first, state, sums


@pytest.mark.daily(1)
@pytest.mark.parametrize("name, precision, mesh, accumulate", [*chosen()])
def test_it_takes_steps(name, precision, mesh, accumulate):
    before, after, sums = trained(dict(name=name), precision, mesh, accumulate)
    assert int(after.step) == STEPS and not any(float(s["nonfinite"]) for s in sums)
    frozen, others = tree.flatten(before.params), tree.flatten(after.params)
    for path, old in frozen.items():
        assert others[path].dtype == old.dtype == np.float32
        assert np.isfinite(others[path]).all()
        assert np.array_equal(others[path], old) == (path == "positions"), path
    where = {path: leaf.sharding for path, leaf in tree.flatten(after.params).items()}
    split = any(not leaf.is_fully_replicated for leaf in where.values())
    assert split == (mesh == "2x4")


def whole(name):
    """The optimizer without what a last digit could tip over: a momentum in bf16."""
    return dict(name=name) | (dict(mu_dtype=None) if name == "adafactor" else {})


@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMES)
def test_a_mesh_does_not_change_three_f64_steps(name):
    # Softmax does not see the bias of the keys: its gradient is rounding, of which Lion makes
    # steps of full size.
    with jax.enable_x64(True):
        (_, one, _), (_, other, _) = (trained(whole(name), "f64", mesh, 1, freeze=(".*qkv/bias",))
                                      for mesh in MESHES)
        assert_close(one, other, 1e-9)


def assert_close(one, other, tolerance):
    found = tree.flatten(other)
    for path, leaf in tree.flatten(one).items():
        a, b = np.asarray(leaf, np.float64), np.asarray(found[path], np.float64)
        assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(a), path


PARAMS = {"block0": {"kernel": (64, 128), "bias": (128,)}, "head": {"kernel": (128, 8)},
          "stem": {"kernel": (3, 3, 16, 64)}}


def built(choice, decay):
    """(parameters in f64, optimizer)."""
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda shape: rng.normal(size=shape), PARAMS,
                          is_leaf=lambda leaf: isinstance(leaf, tuple))
    return params, learning.optimizer(dict(
        optimizer=choice, schedule=dict(name="constant", base=0.01), weight_decay=decay,
        clip=None, freeze=(), ema=None, batch_size=1), params, STEPS).transformation


@pytest.mark.daily(4)
@pytest.mark.parametrize("name", NAMES)
def test_updates_of_a_split_state_are_those_of_a_whole_one(name):
    """Norms, rows and columns, and matrices go across the devices that share a leaf."""
    with jax.enable_x64(True):
        params, optimizer = built(whole(name), dict(value=0.1, on=".*kernel"))
        gradients = jax.tree.map(lambda p: np.cos(7 * p), params)

        def steps(params):
            state = optimizer.init(params)
            for _ in range(2):
                updates, state = optimizer.update(gradients, state, params)
                params = optax.apply_updates(params, updates)
            return params

        mesh = make_mesh(jax.devices()[:8], data=2, fsdp=4)
        split = transfer.place(params, state_shardings(params, mesh))
        assert not split["stem"]["kernel"].sharding.is_fully_replicated
        run = jax.jit(steps, compiler_options=FAST)
        assert_close(run(params), run(split), 1e-11)


@pytest.mark.daily(4)
@pytest.mark.parametrize("name", NAMES)
def test_decay_in_every_mode_changes_what_it_is_on_alone(name):
    def updates(decay):
        params, optimizer = built(dict(name=name), decay)
        gradients = jax.tree.map(np.cos, params)
        run = jax.jit(lambda params: optimizer.update(
            gradients, optimizer.init(params), params)[0], compiler_options=FAST)
        return tree.flatten(run(params))

    with jax.enable_x64(True):
        plain = updates(None)
        for mode in ("coupled", "times_lr", "times_schedule"):
            found = updates(dict(value=0.5, mode=mode, on="(block0|stem)/kernel"))
            changed = {path for path in plain if not np.allclose(plain[path], found[path])}
            assert changed == {"block0/kernel", "stem/kernel"}, mode
