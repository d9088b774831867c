"""Metrics of decisions against scikit-learn: random, tied, absent and single classes, and NaN."""

import itertools

import jax
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from imgcls_jax.metrics.accuracy import accuracy
from imgcls_jax.metrics.agreement import agreement
from imgcls_jax.metrics.balanced_accuracy import balanced_accuracy
from imgcls_jax.metrics.confusion import confusion
from imgcls_jax.metrics.f1 import f1
from imgcls_jax.metrics.topk_interval import topk_interval

KINDS = ("random", "ties", "empty", "single", "nan")
K = 6


def drawn(kind: str, seed: int, count: int = 90):
    """(logits f32[N,K], labels i64[N])."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, K)).astype(np.float32)
    labels = rng.integers(0, K, count)
    logits[np.arange(count), labels] += 1
    if kind == "ties":
        logits = rng.integers(0, 3, (count, K)).astype(np.float32)
    elif kind == "empty":  # two classes are never true, another two are never said
        labels, logits[:, 1:3] = labels % 4, -9
    elif kind == "single":
        labels[:] = 2
        logits[:, 2] += 9 * (seed % 2)
    elif kind == "nan":
        logits[rng.random(logits.shape) < 0.03] = np.nan
    return logits, labels


def several(kind: str, seed: int, outputs: int, count: int = 90):
    """(logits, targets) f32[N,outputs] of sigmoids."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, outputs)).astype(np.float32)
    if kind == "ties":
        logits = rng.integers(-1, 2, (count, outputs)).astype(np.float32)
    targets = (logits + rng.normal(size=logits.shape) > 0).astype(np.float32)
    if kind == "empty":
        targets[:, 0], logits[:, -1] = 0, -9
    elif kind == "single":
        targets[:] = seed % 2
    elif kind == "nan":
        logits[rng.random(logits.shape) < 0.03] = np.nan
    return logits, targets


def of(metric, logits, targets):
    """The metric over padded batches of odd sizes, as the host adds them up."""
    total, kept, cuts = {}, [], [0, 7, 8, 40, len(logits)]
    for first, last in itertools.pairwise(cuts):
        missing = 60 - (last - first)
        x, y = (np.concatenate([a[first:last], np.full((missing, a.shape[1]), fill, a.dtype)])
                for a, fill in ((logits, np.nan), (targets, 1)))
        mask = np.arange(60) < last - first
        if metric.update:
            for name, value in metric.update(x, y, mask.astype(np.float32)).items():
                total[name] = total.get(name, 0) + np.asarray(value, np.float64)
        else:
            kept.append({name: np.asarray(rows)[mask] for name, rows in
                         metric.rows(x, y).items()})
    if not metric.update:
        total = jax.tree.map(lambda *parts: np.concatenate(parts), *kept)
    return metric.finish(total)


def said(logits) -> np.ndarray:
    """Class K for a row that says nothing."""
    return np.where(np.isnan(logits).any(-1), K, np.nan_to_num(logits).argmax(-1))


def close(found: dict, expected: dict):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_multiclass_decisions_equal_scikit_learns(kind, seed):
    logits, labels = drawn(kind, seed)
    guess, targets = said(logits), np.eye(K, dtype=np.float32)[labels]
    expected = {}
    for average in ("macro", "micro", "weighted", None):
        values = sk.precision_recall_fscore_support(
            labels, guess, labels=range(K), average=average, zero_division=0)
        for name, value in zip(("precision", "recall", "f1"), values, strict=False):
            expected[f"{name}_{average or 'per_class'}"] = value
    close(of(f1("multiclass", average=("macro", "micro", "weighted")), logits, targets), expected)

    matrix = sk.confusion_matrix(labels, guess, labels=range(K))
    found = of(confusion("multiclass"), logits, targets)["confusion"]
    np.testing.assert_array_equal(found, matrix)

    found = of(balanced_accuracy("multiclass"), logits, targets)
    right = np.array([(guess == k)[labels == k].mean() if (labels == k).any() else np.nan
                      for k in range(K)])
    close(found, {"balanced_accuracy": np.nanmean(right), "accuracy_per_class": right})
    if kind != "nan":
        with np.errstate(all="ignore"):
            assert found["balanced_accuracy"] == pytest.approx(
                sk.balanced_accuracy_score(labels, guess))

    found = of(agreement("multiclass"), logits, targets)
    kappa = np.nan_to_num(sk.cohen_kappa_score(labels, guess))
    close(found, {"kappa": kappa, "mcc": sk.matthews_corrcoef(labels, guess)})

    interval = stats.binomtest(int((labels == guess).sum()), len(labels)).proportion_ci(
        0.9, method="wilson")
    ends = {"low": interval.low, "high": interval.high}
    share = (labels == guess).mean()
    close(of(accuracy("multiclass", confidence=0.9), logits, targets),
          {"accuracy": share, **{f"accuracy_{end}": value for end, value in ends.items()}})
    close(of(topk_interval("multiclass", k=(1,), confidence=0.9), logits, targets),
          {"top1": share, **{f"top1_{end}": value for end, value in ends.items()}})


@pytest.mark.parametrize("threshold", [0.5, 0.3])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_binary_decisions_equal_scikit_learns(kind, seed, threshold):
    logits, targets = several(kind, seed, 1)
    labels = targets[:, 0].astype(int)
    guess = (logits > np.log(threshold / (1 - threshold)))[:, 0].astype(int)
    guess = np.where(np.isnan(logits[:, 0]), 1 - labels, guess)
    values = sk.precision_recall_fscore_support(labels, guess, average="binary", zero_division=0)
    close(of(f1("binary", threshold=threshold), logits, targets),
          dict(zip(("precision", "recall", "f1"), values, strict=False)))
    np.testing.assert_array_equal(
        of(confusion("binary", threshold=threshold), logits, targets)["confusion"],
        sk.confusion_matrix(labels, guess, labels=(0, 1)))
    share = (labels == guess).mean()
    assert of(accuracy("binary", threshold=threshold), logits, targets)[
        "accuracy"] == pytest.approx(share)
    found = of(agreement("binary", threshold=threshold), logits, targets)
    close(found, {"kappa": np.nan_to_num(sk.cohen_kappa_score(labels, guess)),
                  "mcc": sk.matthews_corrcoef(labels, guess)})
    found = of(balanced_accuracy("binary", threshold=threshold), logits, targets)
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, guess))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_multilabel_decisions_equal_scikit_learns(kind, seed):
    logits, targets = several(kind, seed, 4)
    true = targets.astype(int)
    guess = np.where(np.isnan(logits), 1 - true, logits > 0)  # a decision on NaN is wrong
    expected = {}
    for average in ("macro", "micro", "weighted", None):
        values = sk.precision_recall_fscore_support(true, guess, average=average, zero_division=0)
        for name, value in zip(("precision", "recall", "f1"), values, strict=False):
            expected[f"{name}_{average or 'per_class'}"] = value
    close(of(f1("multilabel", average=("macro", "micro", "weighted")), logits, targets), expected)
    np.testing.assert_array_equal(of(confusion("multilabel"), logits, targets)["confusion"],
                                  sk.multilabel_confusion_matrix(true, guess))
    found = of(accuracy("multilabel"), logits, targets)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(true, guess))
    assert found["label_accuracy"] == pytest.approx(1 - sk.hamming_loss(true, guess))


def test_any_of_several_valid_labels_will_do_and_examples_without_one_are_left_out():
    rng = np.random.default_rng(0)
    targets = (rng.random((90, K)) < 0.3).astype(np.float32)
    logits = rng.normal(size=(90, K)).astype(np.float32)
    known = targets.any(1)
    hit = targets[np.arange(90), logits.argmax(1)][known] > 0
    assert 0 < known.sum() < 90
    assert of(accuracy("multiclass"), logits, targets)["accuracy"] == pytest.approx(hit.mean())
    found = of(confusion("multiclass"), logits, targets)["confusion"]
    assert (found.sum(), np.trace(found)) == (known.sum(), hit.sum())
    assert of(f1("multiclass", average=("micro",)), logits, targets)[
        "f1_micro"] == pytest.approx(hit.mean())


def test_a_confusion_matrix_of_many_classes_lists_what_occurs(monkeypatch):
    from imgcls_jax.metrics import confusion as module

    logits, labels = drawn("nan", 0)
    targets = np.eye(K, dtype=np.float32)[labels]
    dense = of(confusion("multiclass"), logits, targets)["confusion"]
    monkeypatch.setattr(module, "DENSE", K - 1)
    found = of(confusion("multiclass"), logits, targets)
    again = np.zeros((K, K), int)
    again[tuple(found["confusion_pairs"].T)] = found["confusion_counts"]
    np.testing.assert_array_equal(again, dense)
    assert (found["confusion_counts"] > 0).all()


def test_the_interval_of_nothing_is_everything():
    sums = jax.tree.map(np.float64, {"right@0.5": 0, "labels@0.5": 0, "labels": 0, "known": 0})
    assert accuracy("binary").finish(sums) == {"accuracy": 0.0, "accuracy_low": 0.0,
                                               "accuracy_high": 1.0}
