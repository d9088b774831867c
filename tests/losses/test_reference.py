"""Every loss beside torch, torchvision and timm, value and gradient, as recorded by
experiments/parity/losses.py; beside numpy where these have none; and at logits of +-100."""

import functools
from pathlib import Path

import jax
import numpy as np
import pytest

from imgcls_jax.errors import ConfigError
from imgcls_jax.losses import LOSSES

WITH = np.load(Path(__file__).parent / "reference.npz")
ONE_HOT = np.eye(5)[WITH["labels"]]
WEIGHTS = tuple(WITH["weights"].tolist())
TARGETS = {"labels": ONE_HOT, "multihot": WITH["multihot"], "soft": WITH["soft"]}
PRIOR = (0.1, 0.2, 0.4, 0.25, 0.05)
CASES = {
    "softmax": ("softmax", "labels", {}),
    "softmax_soft": ("softmax", "soft", dict(class_weights=WEIGHTS, smoothing=0.1)),
    "softmax_weighted": ("softmax", "labels", dict(class_weights=WEIGHTS, smoothing=0.1)),
    "bce": ("bce", "labels", dict(smoothing=0.1)),
    "bce_mean": ("bce", "labels", dict(smoothing=0.1, reduce="mean", class_weights=WEIGHTS)),
    "bce_threshold": ("bce", "soft", dict(target_threshold=0.2, reduce="mean")),
    "sigmoid": ("sigmoid", "multihot", {}),
    "sigmoid_smooth": ("sigmoid", "multihot", dict(smoothing=0.1, class_weights=WEIGHTS)),
    "focal": ("focal", "multihot", {}),
    "focal_soft": ("focal", "soft", dict(alpha=None, gamma=1.5)),
    "asymmetric": ("asymmetric", "multihot", {}),
    "asymmetric_weighted": ("asymmetric", "multihot", dict(
        gamma_negative=2, gamma_positive=0, clip=0, class_weights=WEIGHTS)),
    "asymmetric_single": ("softmax_asymmetric", "labels", {}),
}


def both(name, logits, targets, **options):
    """(losses of the examples, gradient of their sum)."""
    loss = LOSSES.get(name)
    return (loss(logits, targets, **options),
            jax.grad(lambda x: loss(x, targets, **options).sum())(logits))


@functools.cache
def of_every_case(dtype):
    """Case -> what `both` gives, all in one program."""
    with jax.enable_x64(True):
        logits, targets = jax.tree.map(lambda a: np.asarray(a, dtype), (WITH["logits"], TARGETS))
        return jax.jit(lambda logits, targets: {
            case: both(name, logits, targets[kind], **options)
            for case, (name, kind, options) in CASES.items()})(logits, targets)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("float64", 1e-12)])
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_the_references(case, dtype, tolerance):
    for ours, part in zip(of_every_case(dtype)[case], ("loss", "gradient"), strict=True):
        theirs = WITH[f"{case}_{part}"]
        assert ours.dtype == dtype and ours.shape == theirs.shape
        # Of the largest: f32 holds a loss of 10 to 1e-6.
        np.testing.assert_allclose(ours, theirs, rtol=tolerance,
                                   atol=tolerance * np.abs(theirs).max())


def by_hand(name, x, y):
    """In numpy, as the papers write them."""
    e = np.exp(x - x.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    s = 1 / (1 + np.exp(-x))
    if name == "poly":
        return -np.log((p * y).sum(-1)) + 2 * (1 - (p * y).sum(-1))
    if name == "softmax_focal":
        pt = (p * y).sum(-1)
        return -(1 - pt)**2 * np.log(pt)
    if name == "logit_adjusted":
        adjusted = p * np.array(PRIOR)
        return -np.log((adjusted * y).sum(-1) / adjusted.sum(-1))
    pt = np.where(y > 0, s, 1 - s)
    return (-np.log(pt) + (1 - pt)).sum(-1)


@pytest.mark.parametrize("name", ["poly", "softmax_focal", "logit_adjusted", "sigmoid_poly"])
def test_values_are_the_papers_where_no_library_has_them(name):
    targets = TARGETS["multihot"] if name == "sigmoid_poly" else ONE_HOT
    options = dict(prior=PRIOR) if name == "logit_adjusted" else {}
    with jax.enable_x64(True):
        loss, gradient = jax.jit(functools.partial(both, name, **options))(WITH["logits"], targets)
        np.testing.assert_allclose(loss, by_hand(name, WITH["logits"], targets), rtol=1e-9)
        step = 1e-6
        for k in range(5):
            moved = [by_hand(name, WITH["logits"] + sign * step * np.eye(5)[k], targets)
                     for sign in (1, -1)]
            np.testing.assert_allclose(gradient[:, k], (moved[0] - moved[1]) / (2 * step),
                                       rtol=1e-5, atol=1e-8)


OPTIONS = {"softmax_focal": [dict(gamma=0.5), dict(gamma=0)],
           "focal": [dict(gamma=0.5)], "asymmetric": [dict(clip=0, gamma_negative=0.5), dict(clip=0,
                                                      gamma_negative=0, gamma_positive=0)],
           "softmax_asymmetric": [dict(gamma_positive=0.5, gamma_negative=0)]}


@pytest.mark.parametrize("name", LOSSES.names())
def test_extreme_logits_have_finite_losses_and_gradients(name):
    logits = np.array([[100, -100, 0], [-100, -100, 100], [100, 100, -100], [0, 0, 0]], np.float32)
    chosen = ([dict(prior=PRIOR[:3])] if name == "logit_adjusted" else
              [*OPTIONS.get(name, []), {}])
    run = jax.jit(lambda logits, targets: [both(name, logits, targets, **options)
                                           for options in chosen])
    for targets in (np.eye(3)[[0, 1, 2, 0]], np.eye(3)[[1, 2, 0, 1]]):
        for options, found in zip(chosen, run(logits, targets.astype(np.float32)), strict=True):
            for value in found:
                assert np.isfinite(value).all(), (options, value)


def test_one_output_and_several_equal_the_same_loss_of_each():
    x, y = (a.astype(np.float32) for a in (WITH["logits"], TARGETS["multihot"]))
    of_outputs = [name for name in LOSSES.names() if "binary" in LOSSES.facts(name)["tasks"]]
    run = jax.jit(lambda x, y: {name: LOSSES.get(name)(x, y) for name in of_outputs})
    whole, parts = run(x, y), [run(x[:, [k]], y[:, [k]]) for k in range(5)]
    for name in of_outputs:
        np.testing.assert_allclose(whole[name], sum(part[name] for part in parts), rtol=1e-5)


def test_focal_without_focus_is_cross_entropy():
    x, y = (a.astype(np.float32) for a in (WITH["logits"], TARGETS["multihot"]))
    np.testing.assert_allclose(LOSSES.get("focal")(x, y, gamma=0.0, alpha=None),
                               LOSSES.get("sigmoid")(x, y), rtol=1e-5)
    np.testing.assert_allclose(LOSSES.get("softmax_focal")(x, ONE_HOT, gamma=0.0),
                               LOSSES.get("softmax")(x, ONE_HOT), rtol=1e-5)


@pytest.mark.parametrize("name, options", [
    ("softmax", dict(class_weights=(1.0, 2.0))), ("softmax", dict(class_weights=(-1.0,) * 5)),
    ("sigmoid", dict(class_weights="auto")), ("focal", dict(gamma=-1.0)),
    ("focal", dict(alpha=2.0)), ("bce", dict(target_threshold=2.0)), ("poly", dict(epsilon=-2.0)),
    ("asymmetric", dict(clip=1.0)), ("logit_adjusted", dict(prior=(1.0,))),
    ("softmax", dict(smoothing=-0.1))])
def test_what_has_no_meaning_is_refused(name, options):
    with pytest.raises(ConfigError) as raised:
        LOSSES.get(name)(WITH["logits"], ONE_HOT, **options)
    assert raised.value.where == f"config.loss.{next(iter(options))}"
