"""Thresholds by F1, beside scikit-learn's precision-recall curve tried at every cut."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, fbeta_score, precision_recall_curve

from imgcls_jax import tasks
from imgcls_jax.errors import ConfigError
from imgcls_jax.evaluators.thresholds import best, thresholds
from imgcls_jax.losses.sigmoid import sigmoid
from tests.evaluators.splits import CLASSES, KERNEL, features, made, parts

SCALE = 0.03  # logits whose probabilities are far from 0 and 1, where f32 rounds them together
RNG = np.random.default_rng(3)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("levels", [5, 1000])
def test_no_cut_is_better(beta, levels):
    for _ in range(20):
        right = RNG.random(40) < 0.3
        right[0] = True
        chances = np.clip((RNG.normal(0.4 + 0.2 * right, 0.2) * levels).round() / levels, 0, 1)
        precision, recall, _ = precision_recall_curve(right, chances)
        with np.errstate(invalid="ignore"):
            curve = (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
        found = best(chances, right, beta)
        assert 0 <= found <= 1
        np.testing.assert_allclose(fbeta_score(right, chances >= found, beta=beta),
                                   np.nanmax(curve), rtol=1e-9)


def test_a_probability_that_is_not_a_number_gives_no_threshold():
    assert np.isnan(best(np.array([0.2, np.nan, 0.9]), np.array([True, False, True]), 1.0))


def test_a_class_that_never_occurs_keeps_one_half():
    assert best(np.array([0.2, 0.9]), np.array([False, False]), 1.0) == 0.5


@pytest.mark.parametrize("fit", ["", "train"])
@pytest.mark.parametrize("devices", [1, 8])
def test_what_is_reported_is_of_other_examples(fit, devices):
    task = tasks.make("multilabel", tuple("abcde"), sigmoid, {})

    def several(count, seed):
        images, labels = made(count, seed)
        return images, np.eye(CLASSES, dtype=np.float32)[labels]

    splits = {None: several(61, 1), "train": several(203, 2)}
    given = parts(devices, {k: (images, targets) for k, (images, targets) in splits.items()},
                  task=task)
    found = thresholds(given, fit=fit)({"scale": np.float32(SCALE)})
    chances = {k: 1 / (1 + np.exp(-(SCALE * features(images).astype(np.float64) @ KERNEL)))
               for k, (images, _) in splits.items()}
    if fit:
        fitted, targets = chances["train"], splits["train"][1]
        rest, truth = chances[None], splits[None][1]
    else:
        fitted, targets = chances[None][::2], splits[None][1][::2]
        rest, truth = chances[None][1::2], splits[None][1][1::2]
    expected = [best(*columns, 1.0) for columns in zip(fitted.T, targets.T > 0, strict=True)]
    np.testing.assert_allclose(found["thresholds"], expected, atol=1e-5)
    for name, limits in (("f1_macro", 0.5), ("f1_macro_tuned", found["thresholds"])):
        score = f1_score(truth > 0, rest >= limits, average="macro", zero_division=0)
        np.testing.assert_allclose(found[name], score, atol=1e-6, err_msg=name)


def test_one_class_of_several_has_none():
    with pytest.raises(ConfigError, match="multiclass"):
        thresholds(parts())
