"""CutMix: a box of the example before, drawn as torchvision's, and the targets by its area."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from imgcls_jax.device_transforms import DEVICE_TRANSFORMS

RECORDED = np.load(Path(__file__).parent / "fixtures" / "device_transforms.npz")
HEIGHT, WIDTH = 32, 48


def boxes(masks):
    """bool[N,H,W] -> i[N,4] of (top, bottom, left, right); each is one full rectangle."""
    found = []
    for mask in np.asarray(masks):
        rows, columns = np.nonzero(mask)
        box = (0,) * 4
        if len(rows):
            box = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        assert mask.sum() == (box[1] - box[0]) * (box[3] - box[2])
        found.append(box)
    return np.array(found)


def cut(count, name="cutmix", **arguments):
    """(images f[N,H,W], own share of targets f[N]) of a batch whose examples alternate 0 and 1,
    each turned so that its own pixels are 0."""
    transform = jax.jit(DEVICE_TRANSFORMS.get(name)(**arguments))
    own = jnp.arange(count) % 2
    images = jnp.zeros((count, HEIGHT, WIDTH, 1)) + own[:, None, None, None]
    images, targets = transform(jax.random.key(2), images, jax.nn.one_hot(own, 2))
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
    return (np.abs(np.asarray(images)[..., 0] - np.asarray(own)[:, None, None]),
            np.asarray(targets)[np.arange(count), own])


@pytest.mark.daily(1)
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_a_share_p_has_boxes_as_torchvisions_and_targets_mixed_by_their_exact_area(alpha):
    images, own = cut(4000, alpha=alpha, mode="elem", p=0.75)
    assert set(np.unique(images)) == {0, 1}  # pixels are one or the other
    np.testing.assert_allclose(own, 1 - images.mean((1, 2)), atol=1e-6)
    assert (own[~images.any((1, 2))] == 1).all()
    ours, theirs = boxes(images), RECORDED[f"cutmix: alpha={alpha:g}"].astype(int)

    def facts(box):
        top, bottom, left, right = box.T
        area = (bottom - top) * (right - left)
        # A box of less than a pixel each way, or cut off to nothing, is not seen.
        return [fact[area > 0] for fact in (area, top, bottom, left, right, bottom - top,
                                            right - left)]

    ours, theirs = facts(ours), facts(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert scipy.stats.ks_2samp(one, other).pvalue > 0.001
    seen = 0.75 * len(theirs[0]) / 4000
    assert scipy.stats.binomtest(len(ours[0]), 4000, seen).pvalue > 0.001


def test_one_box_for_the_batch_from_the_example_before():
    images = np.random.default_rng(0).normal(size=(5, HEIGHT, WIDTH, 3)).astype(np.float32)
    mixed, targets = jax.jit(DEVICE_TRANSFORMS.get("cutmix")(alpha=1.0))(
        jax.random.key(0), images, np.eye(5, dtype=np.float32))
    taken = (np.asarray(mixed) != images).all(-1)
    (box,) = np.unique(boxes(taken), axis=0)
    expected = images.copy()
    inside = np.s_[:, box[0]:box[1], box[2]:box[3]]
    expected[inside] = np.roll(images, 1, 0)[inside]
    np.testing.assert_array_equal(mixed, expected)
    area = (box[1] - box[0]) * (box[3] - box[2]) / (HEIGHT * WIDTH)
    assert 0 < area < 1
    np.testing.assert_allclose(
        targets, (1 - area) * np.eye(5) + area * np.roll(np.eye(5), 1, 0), atol=1e-6)


@pytest.mark.daily(1)
@pytest.mark.parametrize("mode", ["elem", "batch"])
def test_mixup_or_cutmix_draws_one_of_both_for_a_share_p(mode):
    arguments = dict(mixup_alpha=0.8, cutmix_alpha=1.0, p=0.8, switch_prob=0.3, mode=mode)
    if mode == "elem":
        images, own = cut(4000, "mixup_or_cutmix", **arguments)
    else:
        transform = DEVICE_TRANSFORMS.get("mixup_or_cutmix")(**arguments)
        given = jnp.zeros((2, HEIGHT, WIDTH, 1)).at[1].set(1), jnp.eye(2)
        images, targets = jax.jit(jax.vmap(lambda key: transform(key, *given)))(
            jax.random.split(jax.random.key(4), 4000))
        images, own = np.asarray(images)[:, 0, ..., 0], np.asarray(targets)[:, 0, 0]
    flat = np.ptp(images, (1, 2)) == 0
    np.testing.assert_allclose(1 - images.mean((1, 2)), own, atol=1e-5)
    mixed = flat & (own < 1) & (own > 0)
    assert scipy.stats.binomtest(int(mixed.sum()), 4000, 0.8 * 0.7).pvalue > 0.001
    assert scipy.stats.kstest(own[mixed], scipy.stats.beta(0.8, 0.8).cdf).pvalue > 0.001
    theirs = (RECORDED["cutmix: alpha=1"] @ np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])).prod(1)
    theirs = theirs[(theirs > 0) & (theirs < HEIGHT * WIDTH)]
    areas = images[~flat].sum((1, 2)).round()
    assert scipy.stats.binomtest(len(areas), 4000, 0.8 * 0.3 * len(theirs) / 4000).pvalue > 0.001
    assert scipy.stats.ks_2samp(areas, theirs).pvalue > 0.001
