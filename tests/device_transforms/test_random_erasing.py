"""Random erasing: rectangles drawn as timm's, filled with what the mode says."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from imgcls_jax.device_transforms.random_erasing import random_erasing
from imgcls_jax.errors import ConfigError

RECORDED = np.load(Path(__file__).parent / "fixtures" / "device_transforms.npz")
HEIGHT, WIDTH = 32, 48


def erase(images, channels=1, **arguments):
    """f32[N,H,W,C] of images that were 7 everywhere."""
    made, targets = jax.jit(random_erasing(**arguments))(
        jax.random.key(0), jnp.full((images, HEIGHT, WIDTH, channels), 7.0), jnp.ones((images, 2)))
    assert (targets == 1).all()
    return np.asarray(made)


def rectangles(images):
    """i[N,4] of (top, left, height, width); each is full."""
    found = []
    for mask in (images != 7).any(-1):
        rows, columns = np.nonzero(mask)
        found.append((rows.min(), columns.min(), np.ptp(rows) + 1, np.ptp(columns) + 1)
                     if len(rows) else (0, 0, 0, 0))
        assert mask.sum() == found[-1][2] * found[-1][3]
    return np.array(found)


@pytest.mark.daily(1)
@pytest.mark.parametrize("case, arguments", [
    ("erased: p=0.25, area 0.1 to 0.9", dict(p=0.25, scale=(0.1, 0.9))),  # which often do not fit
    ("erased: p=1", dict(p=1.0))])
def test_rectangles_are_drawn_as_timms(case, arguments):
    ours, theirs = rectangles(erase(4000, **arguments)), RECORDED[case].astype(int)
    erased = [(boxes[:, 2] > 0).sum() for boxes in (ours, theirs)]
    assert scipy.stats.fisher_exact(
        [[n, 4000 - n] for n in erased]).pvalue > 0.001
    ours, theirs = (boxes[boxes[:, 2] > 0] for boxes in (ours, theirs))
    for fact in (lambda b: b[:, 2] * b[:, 3], lambda b: b[:, 2] / b[:, 3], lambda b: b[:, 2],
                 lambda b: b[:, 3], lambda b: b[:, 0], lambda b: b[:, 1]):
        assert scipy.stats.ks_2samp(fact(ours), fact(theirs)).pvalue > 0.001


def test_area_is_uniform_and_aspect_log_uniform_within_the_given():
    boxes = rectangles(erase(3000, p=1.0, scale=(0.1, 0.2), ratio=(0.5, 1.5)))
    area, aspect = boxes[:, 2] * boxes[:, 3] / (HEIGHT * WIDTH), boxes[:, 2] / boxes[:, 3]
    # Sides are whole pixels: up to some 4% more or less each.
    assert 0.09 < area.min() and area.max() < 0.22 and 0.45 < aspect.min() and aspect.max() < 1.65
    assert scipy.stats.kstest(area, "uniform", (0.1, 0.1)).statistic < 0.04
    low, high = np.log([0.5, 1.5])
    assert scipy.stats.kstest(np.log(aspect), "uniform", (low, high - low)).statistic < 0.05


@pytest.mark.nightly
def test_what_a_rectangle_is_filled_with():
    rest = dict(p=1.0, channels=3)
    for value in (0.0, (1.0, 2.0, 3.0)):
        made = erase(50, value=value, **rest)
        changed = made[(made != 7).any(-1)]
        np.testing.assert_array_equal(changed, np.broadcast_to(np.float32(value), changed.shape))
    colors = []
    for image in erase(1000, mode="rand", **rest):
        (color,) = np.unique(image[(image != 7).any(-1)], axis=0)
        colors.append(color)
    assert scipy.stats.kstest(np.ravel(colors), "norm").pvalue > 0.001
    noise = [image[(image != 7).any(-1)] for image in erase(200, mode="pixel", **rest)]
    noise = np.concatenate(noise)
    assert scipy.stats.kstest(noise.ravel()[:20000], "norm").pvalue > 0.001
    assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.02


def test_several_rectangles_share_the_area():
    made = erase(2000, p=1.0, count=3, mode="rand", scale=(0.3, 0.3), ratio=(1.0, 1.0))
    colors = [len(np.unique(image)) - 1 for image in made[..., 0]]
    assert max(colors) == 3 and np.mean(colors) > 2.5  # a later one may hide an earlier one
    side = round((0.1 * HEIGHT * WIDTH) ** 0.5)
    largest = [max((image == color).sum() for color in np.unique(image) if color != 7)
               for image in made[:200, ..., 0]]
    assert max(largest) == side**2


@pytest.mark.parametrize("arguments", [dict(p=2.0), dict(count=0), dict(scale=(0.5, 0.1)),
                                       dict(ratio=(0.0, 1.0))])
def test_numbers_that_mean_nothing_are_refused(arguments):
    with pytest.raises(ConfigError, match="random_erasing"):
        random_erasing(**arguments)


def test_a_value_for_other_channels_is_refused():
    with pytest.raises(ConfigError, match="3 channels"):
        erase(2, channels=3, value=(1.0, 2.0))
