"""Given what was drawn, the policies make what torchvision's and timm's made of it.

Recorded by experiments/parity/augmentations.py.
"""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from imgcls_jax.transforms import (
    _blur,
    _mixture,
    _operations,
    _policies,
    _timm,
    _torchvision,
    augmix,
    augmix_timm,
    auto_augment,
    auto_augment_timm,
    color_jitter,
    randaugment_timm,
    randaugment_torchvision,
    trivial_augment_wide,
)

FOLDER = Path(__file__).parent / "augmentations"
FILL = (124, 116, 104)


@functools.cache
def record(name):
    """(tables, [(what was drawn, image, result)])."""
    with np.load(FOLDER / f"{name}.npz") as file:
        images = [file[f"image{number}"] for number in range(3)]
        cases, results, found = json.loads(str(file["cases"])), file["results"], []
        for case in cases:
            image = images[case["image"]]
            result, results = results[:image.size], results[image.size:]
            found.append((case, tf.constant(image), result.reshape(image.shape).astype(int)))
        assert not len(results)
        return json.loads(str(file["tables"])), found


def cases(name, kind):
    found = [case for case in record(name)[1] if case[0]["kind"] == kind]
    assert found
    return found


def close(made, expected, most=1):
    assert made.dtype == tf.uint8
    assert np.abs(made.numpy().astype(int) - expected).max() <= most


SPACES = {"randaugment": (randaugment_torchvision.NAMES, randaugment_torchvision.RANGES, 31),
          "trivial": (randaugment_torchvision.NAMES, trivial_augment_wide.RANGES, 31),
          "auto": (("Invert", *randaugment_torchvision.NAMES[1:]),
                   randaugment_torchvision.RANGES, 10),
          "augmix": (augmix.NAMES, augmix.RANGES, 10)}


# Number 1 has one channel.
@pytest.mark.parametrize("policy, number", [
    pytest.param(policy, number, marks=pytest.mark.nightly
                 if number and (policy, number) != ("augmix", 1) else ())
    for policy in SPACES for number in range(3)])
def test_an_operation_of_torchvision_is_the_same_at_its_magnitude_and_sign(policy, number):
    names, ranges, bins = SPACES[policy]
    assert set(names) == set(record("torchvision")[0]["names"][policy])
    found = [row for row in cases("torchvision", policy) if row[0]["image"] == number]
    assert len(found) > 60
    for case, image, expected in found:
        fill = case["fill"] if isinstance(case["fill"], int) else tuple(case["fill"])
        run = _torchvision.operations(names, ranges, bins, case["interpolation"], fill)
        row = tf.constant([case["number"], case["sign"]], tf.float64)
        close(run[names.index(case["name"])](image, row), expected,
              most=0 if case["name"].startswith(("Posterize", "Solarize", "Equalize")) else 1)


def test_the_orders_of_operations_are_torchvisions_and_timms():
    ours = {"randaugment": randaugment_torchvision.NAMES, "augmix": augmix.NAMES}
    for policy, names in ours.items():
        assert list(names) == record("torchvision")[0]["names"][policy]
    theirs = record("timm")[0]["names"]
    assert {"plain": list(randaugment_timm.PLAIN), "increasing": list(randaugment_timm.INCREASING),
            "augmix": list(augmix_timm.NAMES)} == theirs


MEANS_NOTHING = ("AutoContrast", "Equalize", "Invert")


@pytest.mark.parametrize("policy", ["imagenet", "cifar10", "svhn"])
def test_the_policies_are_torchvisions(policy):
    theirs = record("torchvision")[0]["policies"][policy]
    for line, their in zip(_policies.POLICIES[policy], theirs, strict=True):
        for (name, p, magnitude), (their_name, their_p, number) in zip(line, their, strict=True):
            assert (name, p) == (their_name, their_p)
            assert name in MEANS_NOTHING or magnitude == number


@pytest.mark.parametrize("policy", ["original", "originalr", "v0", "v0r"])
def test_the_policies_are_timms(policy):
    table = auto_augment_timm.POLICIES[policy][0]
    renamed = dict(zip(_policies.names(table), auto_augment_timm.operations(policy), strict=True))
    theirs = record("timm")[0]["policies"][policy]
    assert [[[renamed[name], p, magnitude] for name, p, magnitude in line]
            for line in _policies.POLICIES[table]] == theirs


def test_pairs_of_auto_augment_are_torchvisions():
    for case, image, expected in cases("torchvision", "auto_augment"):
        names = _policies.names(case["policy"])
        line = _policies.POLICIES[case["policy"]][case["line"]]
        run = _torchvision.operations(names, randaugment_torchvision.RANGES, auto_augment.BINS,
                                      "nearest", 0)
        rows = [[magnitude, sign] for (_, _, magnitude), sign in zip(line, case["signs"],
                                                                     strict=True)]
        close(_operations.chain(image, run, tf.constant([names.index(name) for name, _, _ in line]),
                                tf.constant(rows, tf.float64)), expected)


def test_augmix_is_torchvisions():
    for case, image, expected in cases("torchvision", "augmix_whole"):
        which, rows = [], []
        for name, magnitude in case["operations"]:
            bins = [abs(m) for m in magnitudes(name, image.shape)]
            which.append(augmix.NAMES.index(name))
            rows.append([int(np.argmin(np.abs(np.array(bins) - abs(magnitude)))),
                         1 if magnitude >= 0 else -1])
        run = _torchvision.operations(augmix.NAMES, augmix.RANGES, 10, "bilinear", 0)
        weights = (1 - case["share"]) * np.float32(case["weights"])
        mixed = _mixture.mean(image, run, weights, tf.reshape(which, (3, 2)),
                              tf.reshape(tf.constant(rows, tf.float64), (3, 2, 2)))
        close(augmix.blend(image, mixed, case["share"]), expected)


def magnitudes(name, shape):
    """Of AugMix, as torchvision defines them."""
    most = {"ShearX": 0.3, "ShearY": 0.3, "TranslateX": shape[1] / 3, "TranslateY": shape[0] / 3,
            "Rotate": 30, "Brightness": 0.9, "Color": 0.9, "Contrast": 0.9, "Sharpness": 0.9}
    if name == "Posterize":
        return 4 - np.round(np.arange(10) / (9 / 4))
    if name == "Solarize":
        return np.linspace(255, 0, 10)
    return np.linspace(0, most.get(name, 0), 10)


def test_color_jitter_is_torchvisions():
    kinds, ranges = color_jitter.jitters(brightness=0.5, contrast=0.4, color=0.6, hue=0.3)
    assert kinds == ("brightness", "contrast", "color", "hue")
    np.testing.assert_allclose(ranges, [(0.5, 1.5), (0.6, 1.4), (0.4, 1.6), (-0.3, 0.3)])
    for case, image, expected in cases("torchvision", "jitter"):
        factors = tf.constant([case["factors"][number] for number in case["order"]], tf.float64)
        close(_operations.chain(image, color_jitter.operations(kinds), tf.constant(case["order"]),
                                factors), expected)


def test_blurs_by_kernels_are_torchvisions():
    for case, image, expected in cases("torchvision", "blur"):
        close(_blur.by_kernel(image, case["sigma"], case["size"]), expected)


def timm_operations(names, translate=0.45):
    return _timm.operations(names, "random", FILL, translate)


@pytest.mark.nightly
def test_an_operation_of_timm_is_the_same_at_its_magnitude_sign_and_interpolation():
    for case, image, expected in cases("timm", "operation"):
        fill = FILL if image.shape[-1] == 3 else 118
        run, = _timm.operations([case["name"]], "random", fill, 0.45)
        close(run(image, tf.constant(case["rows"][0], tf.float64)), expected)


def test_a_chain_of_three_is_timms():
    names = randaugment_timm.INCREASING
    for case, image, expected in cases("timm", "chain"):
        which = tf.constant([names.index(name) for name in case["names"]])
        close(_operations.chain(image, timm_operations(names), which,
                                tf.constant(case["rows"], tf.float64)), expected)


def test_augmix_is_timms():
    names = augmix_timm.NAMES
    for case, image, expected in cases("timm", "augmix_whole"):
        which = tf.reshape([names.index(name) for name in case["names"]], (3, 2))
        mean = _mixture.mean(image, timm_operations(names), np.float32(case["weights"]), which,
                             tf.reshape(tf.constant(case["rows"], tf.float64), (3, 2, 3)))
        close(augmix_timm.blend(image, mean, case["share"]), expected)
