"""Flip, pad_crop and random_crop against numpy, and how often each place is drawn."""

import jax
import numpy as np
import pytest
import scipy.stats

from imgcls_jax.device_transforms import DEVICE_TRANSFORMS
from imgcls_jax.errors import ConfigError

IMAGES = np.random.default_rng(0).integers(1, 256, (1500, 7, 9, 3), np.uint8)


def places(name, candidates, **arguments):
    """Which of the candidates [N,K,h,w,C] each image became."""
    transform = jax.jit(DEVICE_TRANSFORMS.get(name)(**arguments))
    made, targets = transform(jax.random.key(3), IMAGES, np.ones((len(IMAGES), 2)))
    assert (targets == 1).all() and made.dtype == np.uint8
    same = (np.asarray(made)[:, None] == candidates).all((2, 3, 4))
    assert (same.sum(1) == 1).all()
    return np.bincount(same.argmax(1), minlength=candidates.shape[1])


def shifts(images, height, width):
    """All crops of height x width."""
    return np.stack([images[:, top:top + height, left:left + width]
                     for top in range(images.shape[1] - height + 1)
                     for left in range(images.shape[2] - width + 1)], 1)


@pytest.mark.parametrize("p", [0.5, 0.2])
def test_a_share_is_mirrored_left_to_right(p):
    _, mirrored = places("flip", np.stack([IMAGES, IMAGES[:, :, ::-1]], 1), p=p)
    assert scipy.stats.binomtest(int(mirrored), len(IMAGES), p).pvalue > 0.001


@pytest.mark.parametrize("mode, padded", [("zero", "constant"), ("reflect", "reflect")])
def test_every_shift_within_the_padding_is_drawn_equally_often(mode, padded):
    wide = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)), padded)
    assert scipy.stats.chisquare(places("pad_crop", shifts(wide, 7, 9), padding=2,
                                        mode=mode)).pvalue > 0.001


@pytest.mark.parametrize("size", [5, (7, 4)])
def test_every_crop_is_drawn_equally_often(size):
    height, width = (size, size) if isinstance(size, int) else size
    assert scipy.stats.chisquare(places(
        "random_crop", shifts(IMAGES, height, width), size=size)).pvalue > 0.001


@pytest.mark.parametrize("name, arguments", [
    ("flip", dict(p=-0.1)), ("pad_crop", dict(padding=0)),
    ("pad_crop", dict(padding=7, mode="reflect")), ("random_crop", dict(size=8))])
def test_what_does_not_fit_is_refused(name, arguments):
    with pytest.raises(ConfigError):
        DEVICE_TRANSFORMS.get(name)(**arguments)(jax.random.key(0), IMAGES, None)
