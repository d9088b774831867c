"""Every loss with every task: those that fit take a step, the others are refused."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from scipy import special

from imgcls_jax import tasks
from imgcls_jax.assembly import build
from imgcls_jax.datasets import DATASETS
from imgcls_jax.datasets.synthetic import synthetic
from imgcls_jax.errors import ConfigError
from imgcls_jax.losses import LOSSES
from imgcls_jax.parallel import transfer
from imgcls_jax.tasks import KINDS, ClassWeights
from imgcls_jax.types import Lookup

BATCH = 8
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
MULTIHOT = (np.random.default_rng(0).random((64, 4)) < 0.4).astype(np.float32)


@pytest.fixture(autouse=True)
def tagged(monkeypatch):
    """Synthetic images of four classes with several labels each: config.data.name="tagged"."""
    def tagged(*, empty: bool = False):
        source = synthetic(examples=64, held_out=64, size=8, classes=4)
        labels = MULTIHOT * np.array([1, 1, 1, not empty], np.float32)

        def open_split(name):
            whole = source.open(name)

            def read(index):
                import tensorflow as tf

                return {**whole.read(index), "label": tf.gather(labels, index)}

            return Lookup(64, read, whole.where, lambda: labels)

        return dataclasses.replace(source, name="tagged", kind="multilabel", open=open_split)

    DATASETS.names()
    monkeypatch.setitem(DATASETS._found, "tagged", tagged)


def config(kind, **changes):
    data = (dict(name="tagged") if kind == "multilabel" else
            dict(name="synthetic", held_out=64, size=8, classes=2 if kind == "binary" else 4))
    return {
        "seed": 0, "data": data, "transforms": (), "eval_transforms": (), "device_transforms": (),
        "model": dict(name="vit_mini", patch_size=8, width=16, depth=0, heads=2, stem=()),
        "init": None, "task": kind, "loss": {}, "step": dict(name="supervised"),
        "batch_size": BATCH, "total": dict(steps=3), "optimizer": dict(name="adamw"),
        "schedule": dict(name="constant", base=1e-2), "weight_decay": None, "clip": None,
        "freeze": (), "ema": None, "precision": "f32", "mesh": dict(data=1),
        "evals": dict(val=dict(name="classification")), "checkpoint": dict(every=dict(steps=3)),
        "stop": None, "log": dict(every=dict(steps=1)), **changes}


def built(kind, **changes):
    return build(config(kind, **changes), devices=jax.devices()[:1])


CHOICES = [(kind, dict(name=name)) for kind in KINDS for name in LOSSES.names()] + [
    (kind, dict(name=name, class_weights="auto")) for kind, name in
    (("binary", "sigmoid"), ("multilabel", "asymmetric"), ("multiclass", "softmax"))]


def choices():
    """All of them; by default a step of the first loss of each task, and those with counted
    weights of multiclass: what a loss computes is tested in tests/losses."""
    found, seen = [], set()
    for kind, loss in CHOICES:
        fits, counted = kind in LOSSES.facts(loss["name"])["tasks"], "class_weights" in loss
        daily = not fits or (kind == "multiclass" if counted else kind not in seen)
        found.append(pytest.param(kind, loss, marks=() if daily else pytest.mark.nightly))
        seen |= {kind} if fits else set()
    return found


@pytest.mark.parametrize("kind, loss", choices(), ids=lambda value: "-".join(value.values())
                         if isinstance(value, dict) else value)
def test_a_loss_takes_a_step_of_its_tasks_and_is_refused_of_others(kind, loss):
    if kind not in LOSSES.facts(loss["name"])["tasks"]:
        with pytest.raises(ConfigError) as raised:
            built(kind, loss=loss)
        assert raised.value.where == "config.loss.name"
        fitting = [n for n in LOSSES.names() if kind in LOSSES.facts(n)["tasks"]]
        assert all(repr(name) in raised.value.fix for name in fitting)
        return
    run = built(kind, loss=loss)
    state, step = run.init(), jax.jit(run.step, compiler_options=FAST)
    batch = run.put(next(run.batches(0)))
    losses = []
    for _ in range(3):
        state, sums = step(state, batch)
        losses.append(float(sums["loss"]))
        assert sums["nonfinite"] == 0 and sums["seen"] == BATCH
    assert losses[2] < losses[0]
    logits = jax.eval_shape(functools.partial(run.module.apply, state.variables()),
                            np.zeros((3, 8, 8, 3), np.float32))
    assert logits.shape == (3, run.task.outputs)
    probabilities = run.task.probs(np.random.default_rng(0).normal(size=logits.shape))
    assert probabilities.shape == (3, len(run.task.classes)) == (3, {"binary": 2}.get(kind, 4))
    if kind != "multilabel":
        np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize("kind, metrics", [
    ("binary", {"accuracy"}), ("multiclass", {"top1"}),
    ("multilabel", {"label_accuracy", "exact"})])
def test_evaluation_gives_the_loss_and_the_metrics_of_the_task(kind, metrics):
    run = built(kind, loss=dict(name={"multiclass": "softmax"}.get(kind, "sigmoid")))
    found = run.evaluations["val"].run(run.init().eval_variables())
    assert set(found) == {"loss"} | metrics


@pytest.mark.parametrize("kind, now", [("binary", "accuracy"), ("multilabel", "label_accuracy")])
def test_a_run_that_waits_for_the_earlier_name_of_a_metric_goes_on(kind, now):
    run = built(kind, loss=dict(name="sigmoid"), stop=dict(metric="val/decisions", patience=dict(
        steps=3)), checkpoint=dict(every=dict(steps=1), best="val/decisions"))
    assert run.checkpoint.best == run.stop.metric == f"val/{now}"
    assert (run.notes == []) == (kind != "binary")


def test_automatic_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    data = dict(name="synthetic", train="train[:63]", size=8, classes=4)
    run = built("multiclass", data=data, loss=dict(name="softmax", class_weights="auto"))
    labels = np.arange(63) % 4
    np.testing.assert_allclose(run.task.loss.keywords["class_weights"], compute_class_weight(
        "balanced", classes=np.arange(4), y=labels))
    skewed = tasks.automatic("multiclass").counted("multiclass", FOUND, 565)
    assert skewed == pytest.approx(565 / 3 / FOUND[0] * np.array([1, FOUND[0] / FOUND[1], 10]))
    run = built("multiclass", data=data, loss=dict(name="logit_adjusted"))
    np.testing.assert_allclose(run.task.loss.keywords["prior"], np.bincount(labels) / 63)
    run = built("multilabel", loss=dict(name="sigmoid", class_weights="auto"))
    np.testing.assert_allclose(run.task.loss.keywords["class_weights"],
                               (64 - MULTIHOT.sum(0)) / MULTIHOT.sum(0))


FOUND = np.array([500.0, 60.0, 5.0])  # examples of three classes


def test_weights_by_effective_numbers_are_those_of_the_paper():
    """arXiv 1901.05555, eq. 4: E_n = (1 - beta^n) / (1 - beta) = 1 + beta + ... + beta^(n - 1)."""
    for beta in (0.9, 0.999):
        numbers = np.array([sum(beta**i for i in range(int(n))) for n in FOUND])
        found = ClassWeights(weights="effective", beta=beta).counted("multiclass", FOUND, 565)
        np.testing.assert_allclose(np.array(found) * numbers, found[0] * numbers[0])
        assert np.dot(found, FOUND) == pytest.approx(565)  # a mean of 1 over the examples
    assert ClassWeights(weights="effective", beta=0).counted("multiclass", FOUND, 565) == (1, 1, 1)


def test_a_cap_bounds_the_ratio_and_numbers_may_be_given():
    plain = ClassWeights().counted("multiclass", FOUND, 565)
    capped = ClassWeights(cap=20).counted("multiclass", FOUND, 565)
    assert capped == pytest.approx((plain[0], plain[1], 20 * plain[0]))
    assert ClassWeights(weights=(1.0, 2.0)).counted("multiclass", np.zeros(0), 0) == (1, 2)


@pytest.mark.parametrize("mean", ["weights", "examples", None])
def test_the_mean_is_over_the_weights_as_in_torch(mean):
    """torch.nn.CrossEntropyLoss: sum of w[y] l / sum of w[y]; in evaluation of every example."""
    weights = (4.0, 1.0, 0.5, 0.25)
    run = built("multiclass", loss=dict(name="softmax", class_weights=dict(
        weights=weights, mean=mean)))
    rng, state, batch = np.random.default_rng(0), run.init(), next(run.batches(0))
    state = state.replace(params=jax.tree.map(  # a new head is zero: all would have one loss
        lambda leaf: leaf + rng.normal(size=leaf.shape).astype(leaf.dtype) / 8, state.params))
    logits = np.asarray(run.module.apply(state.variables(), normalised(run, batch["image"])))
    entropy = -special.log_softmax(logits, -1)[np.arange(BATCH), batch["label"]]
    assert entropy.std() > 0.1
    _, sums = jax.jit(run.step, compiler_options=FAST)(state, run.put(batch))
    w = np.array(weights)[batch["label"]]
    wanted = (w * entropy).mean() if mean == "examples" else (w * entropy).sum() / w.sum()
    assert sums["loss"] / sums["seen"] == pytest.approx(wanted, rel=1e-4)
    evaluated = run.task.loss(logits, np.eye(4, dtype=np.float32)[batch["label"]])
    np.testing.assert_allclose(evaluated, w * entropy, rtol=1e-4)


@pytest.mark.parametrize("name, kind, choice, key", [
    ("bce", "multiclass", dict(mean="weights"), "mean"),
    ("sigmoid", "multilabel", dict(weights="effective"), "weights"),
    ("softmax", "multiclass", dict(beta=1.0), "beta"),
    ("softmax", "multiclass", dict(cap=0.5), "cap"), ("softmax", "multiclass", dict(best=1), "")])
def test_rules_of_weights_that_mean_nothing_are_refused(name, kind, choice, key):
    with pytest.raises(ConfigError) as raised:
        built(kind, loss=dict(name=name, class_weights=choice))
    assert raised.value.where.startswith(f"config.loss.class_weights.{key}".rstrip("."))


def normalised(run, images):
    mean, std = (np.float32(run.preprocessing[key]) for key in ("mean", "std"))
    return ((images / np.float32(255) - mean) / std).astype(np.float32)


def test_a_class_without_examples_has_no_automatic_weight():
    loss = dict(name="sigmoid", class_weights="auto")
    with pytest.raises(ConfigError, match="class '3' has no training example"):
        built("multilabel", data=dict(name="tagged", empty=True), loss=loss)


@pytest.mark.parametrize("kind, data, says", [
    ("multiclass", dict(name="tagged"), "are multilabel"), ("binary", dict(name="tagged"), "has 4"),
    ("binary", dict(name="synthetic", classes=3), "3 classes"), ("ordinal", None, "'ordinal'")])
def test_data_of_another_task_is_refused(kind, data, says):
    with pytest.raises(ConfigError, match=says):
        built(kind, loss=dict(name="softmax"), **({"data": data} if data else {}))


@pytest.mark.nightly
def test_a_multiclass_run_is_evaluated_where_any_of_several_labels_will_do():
    run = built("multiclass", loss=dict(name="softmax", class_weights="auto"), evals=dict(
        real=dict(name="classification", data=dict(name="tagged", eval="validation"))))
    state = run.init()
    found = run.evaluations["real"].run(state.eval_variables())
    hits, counted = 0, MULTIHOT.any(1).sum()
    for first in range(0, 64, BATCH):
        split = synthetic(examples=64, held_out=64, size=8, classes=4).open("validation")
        images = np.stack([split.read(i)["image"].numpy() for i in range(first, first + BATCH)])
        x = (images / 255 - np.array(run.preprocessing["mean"])) / run.preprocessing["std"]
        best = np.asarray(run.module.apply(state.variables(), x.astype(np.float32))).argmax(-1)
        hits += MULTIHOT[first:first + BATCH][np.arange(BATCH), best].sum()
    assert found["top1"] == pytest.approx(hits / counted) and np.isfinite(found["loss"])


def test_a_multilabel_run_takes_one_label_for_one_of_several():
    run = built("multilabel", loss=dict(name="sigmoid"), evals=dict(
        one=dict(name="classification", data=dict(name="synthetic", held_out=64, size=8,
                                                  classes=4))))
    assert np.isfinite(run.evaluations["one"].run(run.init().eval_variables())["loss"])


@pytest.mark.nightly
def test_the_loss_agrees_on_every_mesh():
    sums = []
    for devices in (1, 8):
        run = build(config("multilabel", loss=dict(name="asymmetric"), mesh=dict(data=devices)),
                    devices=jax.devices()[:devices])
        batch = transfer.to_device(next(run.batches(0)), BATCH, run.mesh)
        sums.append(jax.jit(run.step, compiler_options=FAST)(run.init(), batch)[1]["loss"])
    np.testing.assert_allclose(*sums, rtol=1e-6)
