"""Distillation beside numpy, and a whole run of it: resumed bit for bit, the teacher as it was."""

import dataclasses
import functools

import flax.linen as nn
import jax
import numpy as np
import pytest
from scipy import special

from imgcls_jax import assembly, predict, tree
from imgcls_jax.checkpoint.reading import restore_weights
from imgcls_jax.errors import ConfigError
from imgcls_jax.steps.distill import distill, hard, soft
from imgcls_jax.training import loop
from tests.steps.test_supervised import BATCH, RATE, Net, close, make, pixels
from tests.workdirs import save_workdir

TEACHER = np.random.default_rng(2).normal(size=(4, 5)).astype(np.float32) * 3
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
TARGETS = np.eye(5)[BATCH["label"]]


def teacher(constants, images):
    return images.reshape(len(images), -1) @ constants


def student(module, **options):
    step = functools.partial(distill, teacher="W", **options)
    step, state = make(module, step=step, teacher=teacher)
    return step, state.replace(constants=TEACHER)


def log_softmax(x):
    return special.log_softmax(x, -1)


def losses(logits, taught, kind, temperature):
    """Of each example, by the labels and by the teacher."""
    labels = -(TARGETS * log_softmax(logits)).sum(-1)
    if kind == "hard":
        return labels, -np.take_along_axis(log_softmax(logits), taught.argmax(-1)[:, None], 1)[:, 0]
    t, s = log_softmax(taught / temperature), log_softmax(logits / temperature)
    return labels, temperature**2 * (np.exp(t) * (t - s)).sum(-1)


def slope(logits, taught, kind, temperature):
    """Derivatives of both by the logits."""
    labels = special.softmax(logits, -1) - TARGETS
    if kind == "hard":
        return labels, special.softmax(logits, -1) - np.eye(5)[taught.argmax(-1)]
    return labels, temperature * (special.softmax(logits / temperature, -1)
                                  - special.softmax(taught / temperature, -1))


CASES = [("soft", 0.3, 1.0), ("soft", 0.9, 4.0), ("hard", 0.5, 1.0), ("soft", 0.0, 1.0)]


@pytest.mark.parametrize("kind, alpha, temperature", CASES)
def test_loss_and_update_are_those_of_the_papers(kind, alpha, temperature):
    step, state = student(Net(), kind=kind, alpha=alpha, temperature=temperature)
    new, sums = step(state, BATCH)
    head = jax.tree.map(np.float64, state.params["head"])
    logits, taught = pixels() @ head["kernel"] + head["bias"], pixels() @ TEACHER
    labels, other = losses(logits, taught, kind, temperature)
    np.testing.assert_allclose(sums["loss"], ((1 - alpha) * labels + alpha * other).sum(),
                               rtol=1e-5)
    labels, other = slope(logits, taught, kind, temperature)
    change = ((1 - alpha) * labels + alpha * other) / 12
    close(new.params["head"], {"kernel": head["kernel"] - RATE * pixels().T @ change,
                               "bias": head["bias"] - RATE * change.sum(0)}, rtol=2e-5)
    assert (new.constants == TEACHER).all()


class TwoHeads(nn.Module):
    """As ViT with a distillation token has it."""

    @nn.compact
    def __call__(self, x, train=False):
        x = x.reshape(len(x), -1)
        one, other = nn.Dense(5, name="head")(x), nn.Dense(5, name="head_distillation")(x)
        if train:
            self.sow("aux_logits", "class", one)
            self.sow("aux_logits", "distillation", other)
        return (one + other) / 2


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_a_distillation_head_learns_the_teacher_and_the_other_the_labels(kind):
    step, state = student(TwoHeads(), kind=kind)
    new, sums = step(state, BATCH)
    logits = {name: pixels() @ np.float64(head["kernel"]) + head["bias"]
              for name, head in state.params.items()}
    taught = pixels() @ TEACHER
    labels = losses(logits["head"], taught, kind, 1.0)[0]
    other = losses(logits["head_distillation"], taught, kind, 1.0)[1]
    np.testing.assert_allclose(sums["loss"], (0.5 * labels + 0.5 * other).sum(), rtol=1e-5)
    for name, which in (("head", 0), ("head_distillation", 1)):
        change = 0.5 * pixels().T @ slope(logits[name], taught, kind, 1.0)[which] / 12
        np.testing.assert_allclose(new.params[name]["kernel"],
                                   state.params[name]["kernel"] - RATE * change, rtol=2e-5)


def test_outputs_that_do_not_exclude_each_other_are_distributions_of_their_own():
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(2, 7, 3)).astype(np.float32) * 3
    p, q = special.expit(np.float64(t) / 2), special.expit(np.float64(x) / 2)
    expected = 4 * (special.rel_entr(p, q) + special.rel_entr(1 - p, 1 - q)).sum(-1)
    np.testing.assert_allclose(soft(x, t, False, 2.0), expected, rtol=1e-4)
    yes = special.expit(np.float64(x))
    expected = -np.where(t > 0, np.log(yes), np.log(1 - yes)).sum(-1)
    np.testing.assert_allclose(hard(x, t, False), expected, rtol=1e-5)


@pytest.mark.parametrize("bad, where", [
    (dict(alpha=1.5), "alpha"), (dict(temperature=0.0), "temperature"),
    (dict(kind="hard", temperature=2.0), "temperature")])
def test_what_has_no_meaning_is_refused(bad, where):
    with pytest.raises(ConfigError) as raised:
        student(Net(), **bad)
    assert raised.value.where == f"config.step.{where}"


# ---- a run ----------------------------------------------------------------------------------


def config(**changes):
    return {
        "seed": 0, "data": dict(name="synthetic", held_out=16, size=8, classes=5),
        "transforms": (), "eval_transforms": (), "device_transforms": (),
        "model": dict(name="vit_mini", patch_size=8, width=16, depth=1, heads=2, stem=(),
                      dropout=0.1), "init": None, "task": "multiclass",
        "loss": dict(name="softmax"), "step": dict(name="supervised"), "batch_size": 16,
        "total": dict(steps=4), "optimizer": dict(name="adamw"),
        "schedule": dict(name="constant", base=1e-2), "weight_decay": None, "clip": None,
        "freeze": (), "ema": dict(decay=0.9), "precision": "f32", "mesh": dict(data=1),
        "evals": dict(val=dict(name="classification")), "checkpoint": dict(every=dict(steps=2)),
        "stop": None, "log": dict(every=dict(steps=1)), **changes}


def built(**changes):
    return assembly.build(config(**changes), devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A workdir that normalises in its own way."""
    folder = tmp_path_factory.mktemp("teacher") / "w"
    data = config()["data"] | dict(mean=(0.3, 0.4, 0.5), std=(0.1, 0.2, 0.3))
    run = built(data=data, model=dict(name="vit_mini", patch_size=4, width=32, depth=1, heads=2,
                                      stem=()))

    def drawn():  # a new head is zero, and says nothing of images
        rng, state = np.random.default_rng(0), run.init()
        return state.replace(ema=jax.tree.map(
            lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), state.ema))

    save_workdir(dataclasses.replace(run, init=drawn), folder)
    return folder


def distilled(taught, **options):
    return dict(name="distill", teacher=str(taught), **options)


@pytest.mark.nightly
def test_a_resumed_run_is_the_run_bit_for_bit_and_the_teacher_is_not_saved(taught, tmp_path):
    step = distilled(taught, temperature=2.0)
    common = dict(step=step, evals={})
    loop.train(built(**common), tmp_path / "whole", quiet=True)
    loop.train(built(**common, total=dict(steps=2)), tmp_path / "cut", quiet=True)
    loop.train(built(**common), tmp_path / "cut", quiet=True)
    states = [restore_weights(tmp_path / name / "checkpoints")[0] for name in ("whole", "cut")]
    leaves = [tree.flatten(state) for state in states]
    assert leaves[0].keys() == leaves[1].keys() and set(states[0]) == {"params", "model_state",
                                                                      "ema"}
    assert not any("constants" in str(path) for path in (tmp_path / "whole").rglob("*"))
    for path, leaf in leaves[0].items():
        assert leaf.tobytes() == leaves[1][path].tobytes(), path


@pytest.mark.nightly
def test_the_teacher_sees_the_batch_by_its_own_mean_and_is_read_and_not_compiled_in(taught):
    run = built(step=distilled(taught, kind="hard", alpha=1.0))
    rng, state = np.random.default_rng(1), run.init()
    state = state.replace(params=jax.tree.map(
        lambda leaf: (rng.normal(size=leaf.shape) / 2).astype(leaf.dtype), state.params))
    batch = run.put(next(run.batches(0)))
    images = list(np.asarray(batch["image"]))
    decided = predict.load(taught)(images).argmax(-1)
    assert len(set(decided)) > 1
    step = jax.jit(run.step, compiler_options=FAST)
    mean, std = (np.array(run.preprocessing[name]) for name in ("mean", "std"))
    key = jax.random.fold_in(jax.random.key(0), 0)
    dropout = jax.random.fold_in(jax.random.fold_in(key, 2), 0)
    x = ((np.stack(images) / 255 - mean) / std).astype(np.float32)
    logits = run.module.apply(state.variables(), x, train=True, rngs={"dropout": dropout})
    expected = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), decided[:, None], 1)
    found = step(state, batch)[1]["loss"]
    np.testing.assert_allclose(found, expected.sum(), rtol=1e-4)
    other = state.replace(constants=jax.tree.map(lambda leaf: -leaf, state.constants))
    assert step(other, batch)[1]["loss"] != found and step._cache_size() == 1


@pytest.mark.parametrize("changes, says", [
    (dict(data=dict(name="synthetic", size=8, classes=4)), "5 classes, the run multiclass of 4"),
    (dict(task="multilabel", loss=dict(name="sigmoid")), "the run multilabel"),
    (dict(data=dict(name="synthetic", size=8, classes=5, channels=1)), "3 channels")])
def test_a_teacher_of_something_else_is_refused(taught, changes, says):
    with pytest.raises(ConfigError, match=says):
        built(step=distilled(taught), **changes)


@pytest.mark.parametrize("name", ["nowhere", "resnet18/imagenet1k_v9", ""])
def test_a_teacher_that_is_not_there_is_refused(name):
    with pytest.raises(ConfigError, match="neither a workdir nor published"):
        built(step=distilled(name))
