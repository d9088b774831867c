"""The same mathematics on every mesh: 1 device, 8 x 1 and 2 x 4 (data x fsdp), of a whole Run."""

import re

import jax
import numpy as np
import pytest

from imgcls_jax import assembly, tree
from imgcls_jax.bench import hlo
from imgcls_jax.errors import ConfigError
from imgcls_jax.models import resnet
from imgcls_jax.parallel import transfer
from tests.workdirs import save_workdir

MESHES = {"1": (1, dict()), "8x1": (8, dict(data=8)), "2x4": (8, dict(data=2, fsdp=4))}
MODELS = {"batch norm": dict(name="resnet20", width=16, norm_group=8),
          "dropout": dict(name="vit_mini", patch_size=4, width=64, depth=1, heads=2, stem=(),
                          dropout=0.2)}
OPTIMIZERS = {"sgd": (dict(name="sgd", momentum=0.9), 0.1), "adamw": (dict(name="adamw"), 1e-3)}
SIZE, BATCH = 8, 16  # groups of 8 then span four devices
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@pytest.fixture(autouse=True)
def two_blocks(monkeypatch):
    shorten(monkeypatch)


def shorten(monkeypatch):
    """Two blocks: the nine of resnet20 take minutes to compile three times."""
    network = resnet.ResNet
    monkeypatch.setattr(resnet, "ResNet", lambda classes, blocks, **options: network(
        classes, (1, 1), **options))


def config(model, optimizer, precision, mesh):
    choice, rate = OPTIMIZERS[optimizer]
    return {
        "seed": 0, "data": dict(name="synthetic", size=SIZE, classes=10), "transforms": (),
        "eval_transforms": (), "device_transforms": (),
        "model": MODELS[model], "init": None, "task": "multiclass",
        "loss": dict(name="softmax", smoothing=0.1), "step": dict(name="supervised"),
        "batch_size": BATCH, "total": dict(steps=3), "optimizer": choice,
        "schedule": dict(name="cosine", base=rate),
        "weight_decay": dict(value=1e-2, mode="times_lr"), "clip": dict(norm=1.0), "freeze": (),
        "ema": dict(decay=0.9), "precision": precision, "mesh": mesh, "evals": {},
        "checkpoint": dict(every=dict(steps=3)), "stop": None, "log": dict(every=dict(steps=1))}


def batches():
    rng = np.random.default_rng(0)
    for _ in range(3):
        yield {"image": rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8),
               "label": rng.integers(0, 10, BATCH).astype(np.int32),
               "mask": np.ones(BATCH, np.float32), "id": np.arange(BATCH)}


def trained(model, optimizer, precision, mesh, **changes):
    """(state by path, losses) after three steps; the state as whole host arrays."""
    devices, sizes = MESHES[mesh]
    run = assembly.build(config(model, optimizer, precision, sizes) | changes,
                      devices=jax.devices()[:devices])
    state, losses = run.init(), []
    where = jax.tree.map(lambda leaf: leaf.sharding, run.abstract_state)
    step = jax.jit(run.step, donate_argnums=0, out_shardings=(where, None),
                   compiler_options=FAST)
    for batch in batches():
        state, sums = step(state, transfer.to_device(batch, BATCH, run.mesh))
        losses.append(float(sums["loss"]))
    if mesh == "2x4":
        held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state))
        assert held < 0.5 * tree.size_bytes(state)  # fsdp is really on; the leaves are small
    return {path: np.asarray(leaf) for path, leaf in tree.flatten(state).items()}, losses


NIGHTLY = pytest.mark.nightly


@pytest.mark.parametrize("model, optimizer, meshes", [
    ("batch norm", "sgd", ("2x4",)),
    pytest.param("batch norm", "sgd", ("8x1",), marks=NIGHTLY),
    pytest.param("dropout", "adamw", ("8x1", "2x4"), marks=NIGHTLY),
    pytest.param("batch norm", "adamw", ("8x1", "2x4"), marks=NIGHTLY),
    pytest.param("dropout", "sgd", ("8x1", "2x4"), marks=NIGHTLY)])
def test_three_f64_steps_agree_in_every_leaf(model, optimizer, meshes):
    agree(model, optimizer, meshes)


@pytest.mark.nightly
@pytest.mark.parametrize("adaptive", [False, True])
def test_so_do_those_at_the_sharpest_point_near_by(adaptive):
    agree("batch norm", "sgd", ("8x1", "2x4"), step=dict(name="sam", adaptive=adaptive))


@pytest.mark.parametrize("kind, mesh", [
    ("soft", "2x4"), ("soft", "8x1"), ("hard", "2x4"), ("hard", "8x1")])
@pytest.mark.nightly
def test_so_do_those_that_learn_from_a_teacher(kind, mesh, tmp_path):
    with jax.enable_x64(True):
        taught = config("dropout", "sgd", "f64", dict(data=1)) | dict(seed=5)
        save_workdir(assembly.build(taught, devices=jax.devices()[:1]), tmp_path / "w")
    agree("batch norm", "sgd", (mesh,), step=dict(
        name="distill", teacher=str(tmp_path / "w"), kind=kind))


def agree(model, optimizer, meshes, **changes):
    # In f32 BatchNorm and Adam amplify the order of a sum to percents in three steps.
    with jax.enable_x64(True):
        one, losses = trained(model, optimizer, "f64", "1", **changes)
        assert {leaf.dtype for path, leaf in one.items() if path.startswith("params")} == {
            np.dtype("float64")}
        for mesh in meshes:
            other, other_losses = trained(model, optimizer, "f64", mesh, **changes)
            np.testing.assert_allclose(other_losses, losses, rtol=1e-12)
            assert other.keys() == one.keys()
            for path, leaf in one.items():
                error = np.linalg.norm(np.subtract(other[path], leaf, dtype=np.float64))
                assert error <= 1e-10 * np.linalg.norm(leaf), (mesh, path)


@pytest.mark.nightly
@pytest.mark.parametrize("model", MODELS)
def test_the_first_f32_loss_agrees(model):
    losses = []
    for devices, sizes in MESHES.values():
        run = assembly.build(config(model, "sgd", "f32", sizes), devices=jax.devices()[:devices])
        batch = transfer.to_device(next(batches()), BATCH, run.mesh)
        first = jax.jit(lambda state, batch, run=run: run.step(state, batch)[1]["loss"],
                        compiler_options=FAST)
        losses.append(first(run.init(), batch))
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)


# ---- gradients of each shard by itself --------------------------------------------------------


def by_shard(reduce, devices=8, norm_group=1, accumulate=1, **mesh):
    step = dict(name="supervised", accumulate=accumulate, reduce=reduce)
    choice = dict(name="resnet20", width=16, norm_group=norm_group)
    mesh = mesh or dict(data=devices)
    return assembly.build(config("batch norm", "sgd", "f32", mesh) | dict(model=choice, step=step),
                       devices=jax.devices()[:devices])


def lowered(run):
    return jax.jit(run.step).lower(run.abstract_state, run.abstract_batch)


@pytest.mark.nightly
@pytest.mark.parametrize("reduce, devices, accumulate, tolerance", [
    ("float32", 8, 1, 1e-5), ("float32", 4, 2, 1e-5), ("bfloat16", 8, 1, 2**-8)])
def test_one_sum_over_shards_gives_the_step_of_the_whole_batch(reduce, devices, accumulate,
                                                               tolerance):
    found = []
    for run in (by_shard(None, 1, accumulate=accumulate),
                by_shard(reduce, devices, accumulate=accumulate)):
        state = run.init()
        batch = transfer.to_device(next(batches()), BATCH, run.mesh)
        new, sums = lowered(run).compile(FAST)(state, batch)
        change = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b),
                              (new.params, new.model_state), (state.params, state.model_state))
        found.append((tree.flatten(change), sums))
    (whole, sums), (parts, others) = found
    for path, leaf in whole.items():
        assert np.linalg.norm(parts[path] - leaf) <= tolerance * np.linalg.norm(leaf), path
    for name in sums.keys() - {"gradient_norm"}:
        np.testing.assert_allclose(others[name], sums[name], rtol=1e-5, err_msg=name)


def test_gradients_and_metrics_cross_the_wire_once_and_outside_the_loop():
    with jax.enable_x64(False):  # an f64 run of this process has turned it on
        run = by_shard("float32", accumulate=2)
        found = hlo.collectives(lowered(run).compile(FAST).as_text())
        state, sums = jax.eval_shape(run.step, run.abstract_state, run.abstract_batch)
        sums = {k: v for k, v in sums.items() if k not in ("gradient_norm", "steps", "nonfinite")}
        size = tree.size_bytes((state.params, state.model_state, sums))
        assert found == {"all-reduce": {"count": 1, "bytes": size, "dtypes": {"f32": size}}}


def test_gradients_cross_the_wire_in_the_dtype_asked_for():
    run = by_shard("bfloat16")
    # As lowered: XLA's CPU backend has no sum in bf16, and makes it one in f32.
    text = lowered(run).as_text()
    sent = re.findall(r"stablehlo.all_reduce.*?\}\) : \(tensor<(?:[\dx]+x)?(\w+)>", text, re.DOTALL)
    assert sent.count("bf16") == len(jax.tree.leaves(run.abstract_state.params))


@pytest.mark.parametrize("bad, message", [
    (dict(data=2, fsdp=4), "split over fsdp"), (dict(data=4, model=2), "split over model"),
    (dict(norm_group=None), "over the whole batch"), (dict(norm_group=4), "does not divide")])
def test_what_shards_by_themselves_cannot_compute_is_refused(bad, message):
    with pytest.raises(ConfigError, match=message):
        run = by_shard("float32", **bad)
        jax.eval_shape(run.step, run.abstract_state, run.abstract_batch)
