"""TrivialAugment on the device makes the pictures that torchvision made on Pillow images."""

import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.stats

from imgcls_jax.device_transforms.trivial_augment_wide import policy, trivial_augment_wide
from imgcls_jax.errors import ConfigError

RECORDED = np.load(Path(__file__).parent / "fixtures" / "device_transforms.npz")
SMOOTH = np.linspace(60, 190, 26)[:, None, None] + np.linspace(-30, 30, 31)[:, None]
NOISE = np.random.default_rng(0).normal(0, 12, (26, 31, 3))
PICTURE = np.clip(SMOOTH + NOISE, 20, 230).astype(np.uint8)
NAMES, SUMS = RECORDED["trivial: names"].tolist(), RECORDED["trivial"]


def test_every_operation_of_every_strength_and_sign_is_torchvisions():
    one = policy(31, 0, *PICTURE.shape[:2])
    assert len(one.operations) == SUMS.size == 14 * 31 * 2
    made = np.asarray(jax.jit(one.apply)(
        jax.random.key(0), np.broadcast_to(PICTURE, (SUMS.size, *PICTURE.shape)),
        np.arange(SUMS.size))).reshape(2, 31, 14, *PICTURE.shape)
    for k, name in enumerate(NAMES):
        for i in range(31):
            for sign in range(2):
                found = zlib.crc32(made[sign, i, k].tobytes())
                assert found == SUMS[k, i, sign], (name, i, sign)


@pytest.mark.nightly
def test_operations_and_strengths_are_drawn_equally_often():
    images = np.broadcast_to(PICTURE, (5000, *PICTURE.shape))
    made, _ = jax.jit(trivial_augment_wide())(jax.random.key(1), images, np.zeros((5000, 1)))
    found = [zlib.crc32(image.tobytes()) for image in np.asarray(made)]
    values, counts = np.unique(np.append(SUMS[:-2].ravel(), SUMS[-1].ravel()), return_counts=True)
    cells = values[counts == 1]  # what one operation of one strength and sign alone makes
    seen = np.array([found.count(cell) for cell in cells])
    assert len(cells) > 400
    # Each is drawn with a probability of 1 / 868; the rest of the draws is one cell more.
    expected = np.full(len(cells), 5000 / SUMS.size)
    rest = 5000 - seen.sum(), 5000 - expected.sum()
    assert scipy.stats.chisquare([*seen, rest[0]], [*expected, rest[1]]).pvalue > 0.001


def test_few_bins_and_a_fill():
    images = np.full((64, 8, 8, 1), 100, np.uint8)
    made, _ = jax.jit(trivial_augment_wide(bins=2, fill=77))(
        jax.random.key(0), images, np.zeros((64, 1)))
    assert {100, 77} < set(np.unique(made).tolist())
    with pytest.raises(ConfigError, match="bins=1"):
        trivial_augment_wide(bins=1)
