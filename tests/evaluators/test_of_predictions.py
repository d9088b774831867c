"""Temperature scaling, several views and throughput, beside plain numpy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from imgcls_jax.errors import ConfigError
from imgcls_jax.evaluators import test_time_augmentation as augmentation
from imgcls_jax.evaluators.per_class import per_class
from imgcls_jax.evaluators.temperature import fit_temperature, temperature
from imgcls_jax.evaluators.throughput import throughput
from tests.evaluators.splits import CLASSES, KERNEL, SPLITS, TASK, VARIABLES, features, parts

tta = augmentation.test_time_augmentation
IMAGES, LABELS = SPLITS[None]
devices = pytest.mark.parametrize("devices", [8, pytest.param(1, marks=pytest.mark.nightly)])


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def nll(logits, labels):
    return -np.log(softmax(logits)[np.arange(len(labels)), labels]).mean()


def logits_of(images):
    return features(images).astype(np.float64) @ KERNEL


@devices
@pytest.mark.parametrize("fit", ["", "train"])
def test_the_temperature_is_fitted_on_one_part_and_reported_on_another(fit, devices):
    found = temperature(parts(devices), fit=fit)(VARIABLES)
    fitted = SPLITS[fit] if fit else (IMAGES[::2], LABELS[::2])
    held = (IMAGES, LABELS) if fit else (IMAGES[1::2], LABELS[1::2])
    grid = np.exp(np.linspace(-1, 3, 1001))
    best = grid[np.argmin([nll(logits_of(fitted[0]) / t, fitted[1]) for t in grid])]
    assert found["temperature"] == pytest.approx(best, rel=4e-3)
    assert found["nll"] == pytest.approx(nll(logits_of(held[0]), held[1]), rel=1e-5)
    assert found["nll_scaled"] == pytest.approx(
        nll(logits_of(held[0]) / found["temperature"], held[1]), rel=1e-5)
    assert found["nll_scaled"] < found["nll"] and found["ece_scaled"] != found["ece"]


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_sigmoids_have_a_temperature_too(kind):
    rng = np.random.default_rng(0)
    shape = (4000, 1 if kind == "binary" else 3)
    logits = rng.normal(0, 2, shape)
    targets = (rng.random(shape) < 1 / (1 + np.exp(-logits))) * 1.0
    assert fit_temperature(kind, 3 * logits, targets) == pytest.approx(3, rel=0.1)


def views(images, flip, shift, crop):
    """By index, not by padding and slices."""
    height, width = images.shape[1:3]
    rows, columns = np.arange(height), np.arange(width)
    found = [images]
    if shift:
        found += [images[:, (rows + dy).clip(0, height - 1)][:, :, (columns + dx).clip(
            0, width - 1)] for dy in (-shift, shift) for dx in (-shift, shift)]
    if crop:
        offsets = [(0, 0), (0, width - crop), (height - crop, 0), (height - crop, width - crop),
                   ((height - crop) // 2, (width - crop) // 2)]
        found = [images[:, y:y + crop, x:x + crop] for y, x in offsets]
    return found + [np.flip(view, 2) for view in found] * flip


@devices
@pytest.mark.daily(3)
@pytest.mark.parametrize("mean, flip, shift, crop", [
    ("probabilities", True, 0, 0), ("logits", False, 1, 0), ("probabilities", True, 0, 3),
    ("logits", True, 0, 0), ("probabilities", False, 1, 0), ("logits", True, 0, 3)])
def test_views_are_averaged(flip, shift, crop, mean, devices):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (45, 5, 6, 3), np.uint8), rng.integers(0, CLASSES, 45)
    kernel = rng.normal(size=(6 * 6 * 3, CLASSES)).astype(np.float32)

    def plain(x):
        x = x.reshape(len(x), -1).astype(np.float64) / 255
        return x @ kernel[:x.shape[1]]

    def predict(variables, x):
        x = x.reshape(len(x), -1).astype(jnp.float32) / 255
        return jnp.matmul(x, kernel[:x.shape[1]], precision="highest")

    found = tta(parts(devices, {None: (images, labels)}, predict=predict), flip=flip, shift=shift,
                crop=crop, mean=mean)(VARIABLES)
    each = np.stack([plain(view) for view in views(images, flip, shift, crop)])
    chances = softmax(each).mean(0) if mean == "probabilities" else softmax(each.mean(0))
    order = np.argsort(-chances, 1)
    assert found["top1"] == pytest.approx((order[:, 0] == labels).mean())
    assert found["top2"] == pytest.approx((order[:, :2] == labels[:, None]).any(1).mean())
    assert found["loss"] == pytest.approx(-np.log(chances[np.arange(45), labels]).mean(), rel=1e-5)


def test_sigmoids_are_averaged_as_probabilities():
    task = dataclasses.replace(
        TASK, kind="multilabel", metrics={}, loss=lambda logits, _: jax.nn.sigmoid(logits).sum(-1))
    found = tta(parts(1, task=task))(VARIABLES)["loss"]
    both = [1 / (1 + np.exp(-logits_of(view))) for view in (IMAGES, IMAGES[:, :, ::-1])]
    assert found == pytest.approx(np.mean(both, 0).sum(1).mean(), rel=1e-5)


@devices
def test_scores_of_every_class_come_by_its_name(devices):
    found = per_class(parts(devices))(VARIABLES)
    guess = logits_of(IMAGES).argmax(1)
    scores = precision_recall_fscore_support(LABELS, guess, labels=range(CLASSES), zero_division=0)
    expected = {f"{name}/{of}": value for name, values in zip(
        ("precision", "recall", "f1"), scores, strict=False)
        for of, value in zip("abcde", values, strict=True)}
    assert found == pytest.approx(expected)


def test_what_gives_no_view_is_refused():
    with pytest.raises(ConfigError, match="crop=2"):
        tta(parts(1), shift=1, crop=2)
    with pytest.raises(ConfigError, match="2 x 2 pixels"):
        tta(parts(1), crop=3)(VARIABLES)


@devices
def test_throughput_is_of_the_global_batch(devices):
    found = throughput(parts(devices), repeats=3)(VARIABLES)
    assert found["images_per_second"] * found["seconds"] == pytest.approx(16)
    assert 0 < found["seconds"] < 5
