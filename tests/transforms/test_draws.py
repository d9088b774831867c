"""What the augmentations draw is distributed as torchvision's and timm's documentation says.

Fixed seeds; every test rejects with probability 0.001 if the distribution is right.
"""

import collections
import itertools
import math

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from imgcls_jax.transforms import (
    TRANSFORMS,
    _policies,
    augmix,
    augmix_timm,
    auto_augment,
    auto_augment_timm,
    color_jitter,
    gaussian_blur,
    lighting,
    randaugment,
    randaugment_timm,
    randaugment_torchvision,
    random_erasing,
    random_resized_crop,
    rotation,
    three_augment,
    trivial_augment_wide,
)

COUNT = 3000
SMALL = 0.001


def drawn(draw, *arguments, count=COUNT):
    """What draw(seed, *arguments) gives for `count` seeds, each part stacked."""
    @tf.autograph.experimental.do_not_convert
    def one(number):
        return draw(tf.stack([number, 11]), *arguments)

    data = tf.data.Dataset.range(count, output_type=tf.int32).map(one).batch(count)
    return next(data.as_numpy_iterator())


def likely(test) -> bool:
    return test.pvalue > SMALL


def uniform(values, low, high):
    assert likely(scipy.stats.kstest(np.ravel(values), "uniform", (low, high - low)))


def equally_often(numbers, count):
    found = np.bincount(np.ravel(numbers), minlength=count)
    assert len(found) == count and likely(scipy.stats.chisquare(found))


def with_probability(events, p):
    assert likely(scipy.stats.binomtest(int(np.sum(events)), np.size(events), p))


@pytest.mark.parametrize("std", [0.5, 1000])
def test_timms_randaugment(std):
    which, rows = drawn(randaugment_timm.draw, 2, 9, std, 0.4, 10)
    with_probability(which < 15, 0.4)
    equally_often(which[which < 15], 15)
    with_probability((which[:, 0] == which[:, 1])[(which < 15).all(1)], 1 / 15)
    magnitudes, signs, interpolations = (rows[..., column] for column in range(3))
    with_probability(signs > 0, 0.5)
    assert set(np.ravel(signs)) == {-1, 1}
    uniform(interpolations, 0, 1)
    if std == 1000:
        uniform(magnitudes, 0, 9)
    else:  # normal, cut at 10
        with_probability(magnitudes == 10, scipy.stats.norm.sf(2))
        below = scipy.stats.truncnorm(-np.inf, 2, 9, 0.5)
        assert likely(scipy.stats.kstest(magnitudes[magnitudes < 10], below.cdf))


def test_timms_magnitudes_are_cut_to_their_limits():
    assert (drawn(randaugment_timm.draw, 2, 12, 0.0, 0.5, 10, count=9)[1][..., 0] == 10).all()
    assert (drawn(randaugment_timm.draw, 2, 12, 0.0, 0.5, 15, count=9)[1][..., 0] == 12).all()
    low = drawn(randaugment_timm.draw, 2, 0, 3.0, 0.5, 10, count=99)[1][..., 0]
    assert low.min() == 0 and low.max() > 0


def test_torchvisions_randaugment():
    which, rows = drawn(randaugment_torchvision.draw, 2, 9)
    equally_often(which, 14)
    with_probability(which[:, 0] == which[:, 1], 1 / 14)
    assert (rows[..., 0] == 9).all()
    with_probability(rows[..., 1] > 0, 0.5)


def test_big_visions_randaugment():
    which, rows = drawn(randaugment.draw, 2)
    equally_often(which, 16)
    with_probability(rows[..., 0] > 0, 0.5)
    uniform(rows[..., 1], 0, 1)
    uniform(rows[..., 2], 0, 1)


def test_trivial_augment():
    which, rows = drawn(trivial_augment_wide.draw, 31)
    equally_often(which, 14)
    equally_often(rows[..., 0].astype(int), 31)
    with_probability(rows[..., 1] > 0, 0.5)


@pytest.mark.daily(2)
@pytest.mark.parametrize("draw, policy, arguments, column", [
    (auto_augment.draw, "imagenet", (), 1), (auto_augment_timm.draw, "v0", (0.0, 10), 1),
    (auto_augment.draw, "cifar10", (), 1), (auto_augment.draw, "svhn", (), 1)])
def test_auto_augment_draws_its_lines_and_their_probabilities(draw, policy, arguments, column):
    which, rows = drawn(draw, policy, *arguments)
    names, lines = _policies.names(policy), _policies.POLICIES[policy]
    assert len(lines) == 25
    for place in (0, 1):
        expected = collections.Counter()
        for line in lines:
            name, p, magnitude = line[place]
            expected[names.index(name), magnitude] += p / 25
            expected["none"] += (1 - p) / 25
        found = collections.Counter(
            "none" if number == len(names) else (number, magnitude)
            for number, magnitude in zip(which[:, place].tolist(), rows[:, place, 0].tolist(),
                                         strict=True))
        kinds = [kind for kind, share in expected.items() if share > 1e-9]
        assert set(found) <= set(kinds)
        assert likely(scipy.stats.chisquare([found[kind] for kind in kinds],
                                            [COUNT * expected[kind] for kind in kinds]))
    with_probability(rows[..., column] > 0, 0.5)


def test_both_operations_are_of_one_line():
    which, rows = drawn(auto_augment.draw, "svhn")
    names = _policies.names("svhn")
    pairs = {tuple((names.index(name), magnitude) for name, _, magnitude in line)
             for line in _policies.POLICIES["svhn"]}
    for numbers, row in zip(which, rows[..., 0], strict=True):
        if (numbers < len(names)).all():
            assert tuple(zip(numbers.tolist(), row.tolist(), strict=True)) in pairs


@pytest.mark.daily(1)
@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_augmix_draws_weights_depths_and_magnitudes(alpha):
    weights, share, which, rows = drawn(augmix.draw, 13, 4, 3, -1, alpha)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    for chain in range(3):  # one number of a Dirichlet distribution is Beta(alpha, 2 alpha)
        assert likely(scipy.stats.kstest(weights[:, chain],
                                         scipy.stats.beta(alpha, 2 * alpha).cdf))
    assert likely(scipy.stats.kstest(share, scipy.stats.beta(alpha, alpha).cdf))
    depths = (which < 13).sum(-1)
    equally_often(depths - 1, 3)
    assert (np.diff(which == 13, axis=-1) >= 0).all()  # what is none comes last
    equally_often(which[which < 13], 13)
    equally_often(rows[..., 0].astype(int), 4)
    with_probability(rows[..., 1] > 0, 0.5)


def test_timms_augmix_draws_uniform_magnitudes():
    weights, share, which, rows = drawn(augmix_timm.draw, 3, 1000, 4, 2, 1.0, 10)
    assert likely(scipy.stats.kstest(weights[:, 0], scipy.stats.beta(1, 3).cdf))
    uniform(share, 0, 1)
    assert ((which < 13).sum(-1) == 2).all()
    equally_often(which[..., :2], 13)
    uniform(rows[..., 0], 0, 3)


def test_color_jitter_draws_every_order_and_its_factors():
    ranges = ((0.6, 1.4), (0.0, 2.0), (0.5, 0.7), (-0.1, 0.2))
    order, factors = drawn(color_jitter.draw, ranges, 1.0)
    permutations = {p: number for number, p in enumerate(itertools.permutations(range(4)))}
    equally_often([permutations[tuple(row)] for row in order.tolist()], 24)
    for number, (low, high) in enumerate(ranges):
        uniform(factors[order == number], low, high)
    order, _ = drawn(color_jitter.draw, ranges, 0.3)
    with_probability((order < 4).all(1), 0.3)
    assert ((order < 4).all(1) | (order == 4).all(1)).all()


def test_three_augment_draws_one_of_three_and_then_the_jitters():
    ranges = ((0.7, 1.3),) * 3
    which, rows = drawn(three_augment.draw, ranges)
    equally_often(which[:, 0], 3)
    uniform(rows[:, 0], 0.1, 2.0)
    assert (np.sort(which[:, 1:]) == (3, 4, 5)).all()
    equally_often(which[:, 1] - 3, 3)
    uniform(rows[:, 1:], 0.7, 1.3)


def test_blur_rotation_and_lighting():
    blur, sigma = drawn(gaussian_blur.draw, 0.3, (0.1, 2.0))
    with_probability(blur, 0.3)
    uniform(sigma[blur], 0.1, 2.0)
    uniform(drawn(rotation.draw, -15, 30), -15, 30)
    levels = drawn(lighting.draw, 0.1) / 255
    along = np.linalg.solve(np.array(lighting.EIGENVECTORS), levels.T)
    for values, eigenvalue in zip(along, lighting.EIGENVALUES, strict=True):
        assert likely(scipy.stats.kstest(values / (0.1 * eigenvalue), "norm"))
    assert np.abs(np.corrcoef(along) - np.eye(3)).max() < 0.07


def timm_boxes(rng, height, width, count, scale, ratio):
    """What timm.data.RandomErasing erases, as (top, left, height, width)."""
    found, wanted = [], rng.integers(1, count + 1)
    for _ in range(wanted):
        for _ in range(10):
            area = rng.uniform(*scale) * height * width / wanted
            aspect = math.exp(rng.uniform(*np.log(ratio)))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h < height and w < width:
                found.append((rng.integers(0, height - h + 1), rng.integers(0, width - w + 1),
                              h, w))
                break
    return found + [(0, 0, 0, 0)] * (count - len(found))


@pytest.mark.daily(1)
@pytest.mark.parametrize("count", [3, 1])
def test_erased_boxes_are_distributed_as_timms(count):
    shape, scale, ratio = (40, 61), (0.02, 1 / 3), (0.3, 1 / 0.3)
    rng = np.random.default_rng(0)
    boxes = drawn(random_erasing.sample_boxes, *shape, count, scale, ratio)
    expected = np.array([timm_boxes(rng, *shape, count, scale, ratio) for _ in range(COUNT)])
    assert (boxes >= 0).all() and (boxes[..., :2] + boxes[..., 2:] <= shape).all()
    for place, column in itertools.product(range(count), range(4)):
        assert likely(scipy.stats.ks_2samp(boxes[:, place, column], expected[:, place, column]))
    with np.errstate(invalid="ignore"):
        aspects = [(b[:, 0, 2] / b[:, 0, 3])[b[:, 0, 3] > 0] for b in (boxes, expected)]
    assert likely(scipy.stats.ks_2samp(*aspects))


def test_the_area_and_the_ratio_of_a_crop_are_uniform():
    boxes = np.array(drawn(random_resized_crop.sample_box, 2000, 2000, (0.1, 0.3), (0.75, 4 / 3)))
    _, _, heights, widths = boxes.astype(float)
    uniform(heights * widths / 2000**2, 0.1, 0.3)
    uniform(np.log(widths / heights), math.log(0.75), math.log(4 / 3))


def test_the_interpolation_of_a_crop_is_drawn_apart_from_its_box():
    number = drawn(random_resized_crop.sample_interpolation)
    equally_often(number, 2)
    left = drawn(random_resized_crop.sample_box, 500, 500, (0.1, 0.3), (0.75, 4 / 3))[1]
    assert likely(scipy.stats.ks_2samp(left[number == 0], left[number == 1]))


def applied(name, image, count, **arguments):
    """What the transform makes of the image for `count` seeds."""
    transform = TRANSFORMS.bind(dict(name=name, **arguments), name)()

    def run(seed):
        return transform({"image": tf.constant(image), "channels": image.shape[-1]}, seed)["image"]

    return drawn(run, count=count)


@pytest.mark.parametrize("name, arguments, changed", [
    ("flip", dict(axis="vertical"), lambda image: image[::-1]),
    ("grayscale", {}, None), ("solarize", dict(threshold=100), lambda image: np.where(
        image < 100, image, 255 - image)),
    ("random_erasing", {}, None), ("cutout", dict(size=4), None)])
def test_a_transform_runs_with_its_probability(name, arguments, changed):
    image = np.random.default_rng(0).integers(0, 256, (17, 22, 3), np.uint8)
    made = applied(name, image, 400, p=0.3, **arguments)
    differs = (made != image).any((1, 2, 3))
    with_probability(differs, 0.3)
    if changed:
        assert (made[differs] == changed(image)).all()


def test_the_center_of_cutout_is_anywhere():
    made = applied("cutout", np.zeros((10, 12, 1), np.uint8), COUNT, size=2, fill=9)[..., 0]
    tops, lefts = made.any(2).argmax(1), made.any(1).argmax(1)
    assert set(np.unique(made)) == {0, 9}
    # Of a center in the first row one row of the square is left, as of none other.
    rows = np.where(made.any(2).sum(1) == 1, 0, tops + 1)
    columns = np.where(made.any(1).sum(1) == 1, 0, lefts + 1)
    equally_often(rows, 10)
    equally_often(columns, 12)


def test_erasing_fills_with_the_mean_or_with_normal_colors():
    image = np.zeros((30, 30, 3), np.uint8)
    mean, std = (0.5, 0.4, 0.6), (0.1, 0.05, 0.1)
    common = dict(p=1.0, scale=(0.3, 0.3), ratio=(0.9, 1.1), mean=mean, std=std)
    const, rand, pixel = (applied("random_erasing", image, 60, mode=mode, **common)
                          for mode in ("const", "rand", "pixel"))
    for made in const:
        assert set(map(tuple, made.reshape(-1, 3).tolist())) == {(0, 0, 0), (128, 102, 153)}
    colors = []
    for made in rand:
        found = set(map(tuple, made.reshape(-1, 3).tolist())) - {(0, 0, 0)}
        assert len(found) == 1
        colors += found
    pixels = pixel.reshape(-1, 3)[pixel.reshape(-1, 3).any(1)]
    assert len(np.unique(pixels, axis=0)) > 1000
    for values, most in ((np.array(colors), 5), (pixels, 1)):
        normal = (values / 255 - mean) / std
        assert np.abs(normal.mean(0)).max() < most * 0.1
        assert np.abs(normal.std(0) - 1).max() < most * 0.1
