"""Metrics of rows against scikit-learn and plain numpy."""

import jax
import numpy as np
import pytest
from sklearn import metrics as sk

from imgcls_jax.errors import ConfigError
from imgcls_jax.metrics import METRICS
from imgcls_jax.metrics.average_precision import average_precision
from imgcls_jax.metrics.calibration import calibration
from imgcls_jax.metrics.roc_auc import roc_auc

K = 5
METRIC = {"average_precision": (average_precision, sk.average_precision_score),
          "roc_auc": (roc_auc, sk.roc_auc_score)}


def drawn(kind: str, case: str, seed: int, count: int = 80):
    """(logits, targets) f32[N,outputs]."""
    rng = np.random.default_rng(seed)
    outputs = 1 if kind == "binary" else K
    logits = rng.normal(size=(count, outputs)).astype(np.float32)
    if case == "ties":
        logits = rng.integers(-1, 2, (count, outputs)).astype(np.float32)
    if kind == "multiclass":
        labels = rng.integers(0, K - 1 if case == "empty" else K, count)
        labels = labels * 0 + 2 if case == "single" else labels
        return logits, np.eye(K, dtype=np.float32)[labels]
    targets = (logits + rng.normal(size=logits.shape) > 0).astype(np.float32)
    if case == "empty":
        targets[:, -1] = 0
    elif case == "single":
        targets[:] = seed % 2
    return logits, targets


def of(metric, logits, targets, size=40):
    """The metric of rows that come in batches."""
    parts = [jax.device_get(metric.rows(logits[i:i + size], targets[i:i + size]))
             for i in range(0, len(logits), size)]
    return metric.finish(jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", ["random", "ties", "empty", "single"])
@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "binary"])
@pytest.mark.parametrize("name", METRIC)
def test_orders_are_measured_as_scikit_learn_does(name, kind, case, seed):
    make, reference = METRIC[name]
    logits, targets = drawn(kind, case, seed)
    scores = np.asarray(jax.nn.log_softmax(logits)) if kind == "multiclass" else logits
    good = targets.any(0) & (True if name == "average_precision" else ~targets.all(0))
    if kind == "binary":
        found = of(make(kind), logits, targets)
        assert found.keys() == {name}
        expected = reference(targets[:, 0], scores[:, 0]) if good[0] else np.nan
        assert found[name] == pytest.approx(expected, abs=1e-9, nan_ok=True)
        return
    found = of(make(kind, average=("macro", "micro", "weighted")), logits, targets)
    assert found[f"{name}_left_out"] == (~good).sum()
    np.testing.assert_array_equal(np.isnan(found[f"{name}_per_class"]), ~good)
    for average in ("macro", "weighted"):
        expected = (reference(targets[:, good], scores[:, good], average=average)
                    if good.any() else np.nan)
        assert found[f"{name}_{average}"] == pytest.approx(expected, abs=1e-9, nan_ok=True)
    if targets.any() and not targets.all():
        assert found[f"{name}_micro"] == pytest.approx(
            reference(targets.ravel(), scores.ravel()), abs=1e-9)
    elif name == "roc_auc":
        assert np.isnan(found["roc_auc_micro"])


@pytest.mark.parametrize("name", METRIC)
def test_nan_is_worse_than_any_score(name):
    targets = np.array([[1], [0], [1], [0]], np.float32)
    logits = np.array([[np.nan], [np.nan], [np.inf], [-np.inf]], np.float32)
    expected = METRIC[name][1](targets[:, 0], [-9, 9, 8, -8])
    assert of(METRIC[name][0]("binary"), logits, targets)[name] == pytest.approx(expected)


@pytest.mark.parametrize("name", METRIC)
def test_examples_without_a_valid_label_are_left_out(name):
    logits, targets = drawn("multiclass", "random", 0)
    targets[:20] = 0
    assert of(METRIC[name][0]("multiclass"), logits, targets)[f"{name}_macro"] == pytest.approx(
        of(METRIC[name][0]("multiclass"), logits[20:], targets[20:])[f"{name}_macro"])


def plain_ece(confidence, right, bins):
    """Bin by bin, as the equations are written."""
    gaps = []
    for low, high in zip(np.arange(bins) / bins, np.arange(1, bins + 1) / bins, strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            gaps.append((inside.mean(), abs(right[inside].mean() - confidence[inside].mean())))
    return sum(share * gap for share, gap in gaps), max(gap for _, gap in gaps)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", ["random", "ties", "empty", "single"])
@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "binary"])
def test_calibration_equals_plain_numpy_and_scikit_learn(kind, case, seed):
    logits, targets = drawn(kind, case, seed)
    found = of(calibration(kind, bins=7), logits, targets)
    wide = logits.astype(np.float64)
    if kind == "multiclass":
        chances = np.exp(wide - np.log(np.exp(wide).sum(1, keepdims=True)))
        confidence, labels = chances.max(1), targets.argmax(1)
        right = chances.argmax(1) == labels
        nll = sk.log_loss(labels, chances, labels=range(K))
        brier = ((chances - targets)**2).sum(1).mean()
    else:
        confidence, right = 1 / (1 + np.exp(-wide.ravel())), targets.ravel()
        nll, brier = sk.log_loss(right, confidence, labels=[0, 1]), np.mean(
            (confidence - right)**2)
        if right.any() and not right.all():
            assert brier == pytest.approx(sk.brier_score_loss(right, confidence))
    ece, mce = plain_ece(confidence, right, 7)
    for name, value in {"ece": ece, "mce": mce, "brier": brier, "nll": nll}.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name
    if case != "ties":
        order = np.argsort(confidence)
        bins = np.split(order, 5)
        equal = sum(abs(right[b].mean() - confidence[b].mean()) for b in bins) / 5
        assert of(calibration(kind, bins=5), logits, targets)["ece_mass"] == pytest.approx(
            equal, abs=1e-6)
    assert found["reliability_count"].sum() == len(confidence)
    filled = found["reliability_count"] > 0
    assert (found["reliability_accuracy"][filled] * found["reliability_count"][filled]
            ).sum() == pytest.approx(right.sum())


def test_equal_confidences_lie_in_one_bin_in_any_order():
    logits, targets = drawn("binary", "ties", 0)
    metric = calibration("binary", bins=4)
    first, turned = of(metric, logits, targets), of(metric, logits[::-1], targets[::-1])
    assert first["ece_mass"] == turned["ece_mass"]


def test_nan_makes_calibration_nan():
    logits, targets = drawn("multiclass", "random", 0)
    logits[3, 1] = np.nan
    found = of(calibration("multiclass"), logits, targets)
    assert all(np.isnan(found[name]) for name in ("ece", "ece_mass", "mce", "brier", "nll"))


def bootstrap(kind, **options):
    return METRICS.bind({"name": "bootstrap", **options}, "metrics[0]")(kind)


def test_bootstrap_gives_percentiles_of_resamples():
    logits, targets = drawn("binary", "random", 0)
    metric = bootstrap("binary", resamples=200, confidence=0.8, of={"name": "roc_auc"})
    found = of(metric, logits, targets)
    rng, values = np.random.default_rng(0), []
    for _ in range(200):
        rows = rng.integers(0, 80, 80)
        values.append(sk.roc_auc_score(targets[rows, 0], logits[rows, 0]))
    low, high = np.percentile(values, [10, 90])
    assert found == pytest.approx({"roc_auc": sk.roc_auc_score(targets[:, 0], logits[:, 0]),
                                   "roc_auc_low": low, "roc_auc_high": high})


def test_bootstrap_refuses_a_sum_and_another_kind():
    with pytest.raises(ConfigError, match="is a sum"):
        bootstrap("multiclass", of={"name": "topk"})
    with pytest.raises(ConfigError, match="no metric") as caught:
        bootstrap("multiclass", of={"name": "roc"})
    assert caught.value.where == "metrics[0].of.name"
