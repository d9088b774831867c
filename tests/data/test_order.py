"""Orders of training: permutations, with and without a table; how often each example comes."""

import numpy as np
import pytest
import scipy.stats

from imgcls_jax.data.order import ROUNDS, Order, cipher, generator
from imgcls_jax.errors import ConfigError
from imgcls_jax.samplers import SAMPLERS


def epoch(order, number):
    return order.at(np.arange(order.length) + number * order.length)


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 100_003])
def test_the_cipher_is_a_permutation_of_any_size(size):
    found = cipher(np.arange(size), size, np.arange(ROUNDS, dtype=np.uint64))
    assert np.bincount(found, minlength=size).tolist() == [1] * size


def test_the_cipher_mixes_as_a_random_permutation_does():
    size, firsts = 1000, []
    for seed in range(2000):
        keys = generator(seed).integers(0, 2**63, ROUNDS, np.uint64)
        firsts.append(cipher(np.arange(2), size, keys))
    first, second = np.array(firsts).T
    assert scipy.stats.chisquare(np.bincount(first // 50, minlength=20)).pvalue > 1e-3
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.07
    keys = generator(1).integers(0, 2**63, ROUNDS, np.uint64)
    whole = cipher(np.arange(size * 100), size * 100, keys)
    steps = np.diff(whole) % (size * 100)
    assert len(np.unique(steps)) > 0.6 * len(steps)  # of random ones 1 - 1 / e
    assert abs(np.corrcoef(whole[:-1], whole[1:])[0, 1]) < 0.01


def test_a_billion_examples_are_ordered_without_a_table():
    order = Order(10**9, seed=3)
    ids, turns = order.at(np.arange(10**9 - 500, 10**9 + 500))
    assert (0 <= ids).all() and (ids < 10**9).all()
    assert turns.tolist() == [0] * 500 + [1] * 500
    assert len(set(ids[:500])) == 500 and len(set(ids[500:])) == 500
    assert 0.4e9 < ids.mean() < 0.6e9
    again, _ = Order(10**9, seed=3).at(np.arange(10**9 - 500, 10**9 + 500))
    np.testing.assert_array_equal(ids, again)


def test_class_balanced_sampling_draws_every_class_alike():
    labels = np.repeat([0, 1, 2], [900, 90, 10]).astype(np.int32)
    weights = SAMPLERS.get("class_balanced")(labels, 3)
    order = Order(1000, seed=0, weights=weights)
    assert order.length == 1000
    for number in range(3):
        ids, turns = epoch(order, number)
        counts = np.bincount(labels[ids], minlength=3)
        assert np.abs(counts - 1000 / 3).max() <= 12  # of 90 and 10 examples, each 3.7 or 33.3
        per_example = np.bincount(ids, minlength=1000)
        assert set(per_example[labels == 2]) <= {33, 34}
        assert len(set(zip(ids, turns, strict=True))) == 1000  # no draw twice
    assert epoch(order, 0)[0].tolist() != epoch(order, 1)[0].tolist()


def test_the_power_of_balancing_is_a_share_of_the_classes():
    labels = np.repeat([0, 1], [900, 100]).astype(np.int32)
    for power, share in ((0.0, 0.9), (0.5, 0.75), (1.0, 0.5)):
        weights = SAMPLERS.get("class_balanced")(labels, 2, power=power)
        np.testing.assert_allclose(weights[labels == 0].sum() / weights.sum(), share)


def test_repeat_factors_are_those_of_lvis():
    labels = np.repeat([0, 1, 2], [9000, 990, 10]).astype(np.int32)
    weights = SAMPLERS.get("repeat_factor")(labels, 3, threshold=0.01)
    np.testing.assert_allclose(weights[[0, 9000, 9990]], [1, 1, np.sqrt(0.01 / 0.001)])
    assert Order(10_000, 0, weights=weights).length == round(9990 + 10 * np.sqrt(10))
    several = np.zeros((100, 3), np.float32)
    several[:, 0] = 1
    several[:4, 1] = 1
    several[99] = 0
    found = SAMPLERS.get("repeat_factor")(several, 3, threshold=0.16)
    np.testing.assert_allclose(found[[0, 50, 99]], [2, 1, 4])


def test_a_sampler_out_of_range_is_refused():
    labels = np.zeros(3, np.int32)
    with pytest.raises(ConfigError, match="power=2"):
        SAMPLERS.get("class_balanced")(labels, 1, power=2)
    with pytest.raises(ConfigError, match="threshold=0"):
        SAMPLERS.get("repeat_factor")(labels, 1, threshold=0)


def test_repeats_keep_the_length_of_an_epoch():
    order = Order(10, seed=0, repeats=4)
    ids, turns = epoch(order, 0)
    assert order.length == 10 and ids[:4].tolist() == [ids[0]] * 4
    assert turns[:10].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert epoch(order, 1)[1].min() == 4
