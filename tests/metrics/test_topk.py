"""Top-k counts against numpy's stable sort."""

import jax
import numpy as np
import pytest

from imgcls_jax.metrics.topk import topk
from imgcls_jax.metrics.topk_interval import topk_interval


def counts(logits, labels, mask, ks):
    """Of equal logits the lower index first; a row with a NaN counts as wrong."""
    order = np.argsort(-logits, axis=-1, kind="stable")
    good = (mask > 0) & ~np.isnan(logits).any(-1)
    return {f"top{k}": int(sum(labels[i] in order[i, :k] for i in np.flatnonzero(good)))
            for k in ks}


def drawn(kind):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 12)).astype(np.float32)
    if kind == "ties":
        logits = rng.integers(0, 3, (300, 12)).astype(np.float32)
    elif kind == "equal":
        logits[:] = 1.0
    elif kind == "nan":
        logits[rng.random(logits.shape) < 0.03] = np.nan
    elif kind == "infinite":
        logits[rng.random(logits.shape) < 0.2] = np.inf
        logits[rng.random(logits.shape) < 0.2] = -np.inf
    labels = rng.integers(0, 12, 300)
    return logits, labels, (rng.random(300) < 0.8).astype(np.float32)


@pytest.mark.parametrize("classes, k, names", [
    (4, None, ["top1"]), (6, None, ["top1"]), (9, None, ["top1"]), (10, None, ["top1", "top5"]),
    (6, (1, 5), ["top1", "top5"]), (3, (1, 2, 5), ["top1", "top2"])])
def test_top_5_is_given_where_it_says_something_or_is_asked_for(classes, k, names):
    for make in (topk, topk_interval):
        metric = make("multiclass", k=k)
        sums = metric.update(np.eye(classes), np.eye(classes), np.ones(classes))
        found = metric.finish(jax.device_get(sums))
        assert [name for name in found if "_" not in name] == names
        assert all(found[name] == 1 for name in names)


@pytest.mark.parametrize("kind", ["distinct", "ties", "equal", "nan", "infinite"])
def test_counts_equal_a_stable_sort(kind):
    logits, labels, mask = drawn(kind)
    metric = topk("multiclass", k=(1, 2, 5, 12))
    sums = jax.device_get(jax.jit(metric.update)(logits, np.eye(12, dtype=np.float32)[labels],
                                                 mask))
    assert sums.pop("seen") == mask.sum()
    assert sums == counts(logits, labels, mask, (1, 2, 5, 12))


def test_the_class_of_soft_targets_is_their_largest():
    targets = np.array([[0.2, 0.5, 0.3], [0.45, 0.35, 0.2]], np.float32)
    logits = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]], np.float32)
    assert jax.jit(topk("multiclass", k=(1,)).update)(logits, targets, np.ones(2))["top1"] == 1


def test_any_of_several_valid_labels_will_do_and_examples_without_one_are_left_out():
    rng = np.random.default_rng(1)
    targets = (rng.random((200, 6)) < 0.25).astype(np.float32)
    logits, mask = rng.integers(0, 4, (200, 6)).astype(np.float32), rng.random(200) < 0.8
    counted = mask & targets.any(1)
    assert counted.sum() < mask.sum()
    order = np.argsort(-logits, axis=-1, kind="stable")
    sums = jax.jit(topk("multiclass", k=(1, 2)).update)(logits, targets, mask.astype(np.float32))
    assert sums["seen"] == counted.sum()
    for k in (1, 2):
        hit = np.take_along_axis(targets, order[:, :k], 1).any(1)
        assert sums[f"top{k}"] == (hit & counted).sum()


def test_counts_of_parts_add_up_to_those_of_the_whole():
    logits, labels, mask = drawn("ties")
    metric, targets = topk("multiclass"), np.eye(12, dtype=np.float32)[labels]
    update = jax.jit(metric.update)
    whole = update(logits, targets, mask)
    parts = [update(logits[s], targets[s], mask[s]) for s in np.split(np.arange(300), 3)]
    assert whole == {name: sum(part[name] for part in parts) for name in whole}


def test_finish_gives_shares_of_the_examples_seen():
    sums = {"top1": 3.0, "top5": 4.0, "seen": 8.0}
    assert topk("multiclass").finish(sums) == {"top1": 0.375, "top5": 0.5}


def test_a_k_above_the_number_of_classes_is_left_out():
    metric = topk("multiclass", k=(1, 5))
    sums = metric.update(np.eye(3), np.eye(3), np.ones(3))
    assert metric.finish(jax.device_get(sums)) == {"top1": 1.0}
