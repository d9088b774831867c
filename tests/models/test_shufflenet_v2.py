"""ShuffleNetV2's halves, and training; its numbers are tests/pretrained's."""

import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from imgcls_jax.models.shufflenet_v2 import Block, ShuffleNetV2
from tests.models import training


def evaluated(block):
    return SimpleNamespace(init=functools.partial(block.init, train=False))


def small(classes=5, **options):
    return ShuffleNetV2(classes, (8, 12), 20, (2, 1), **options)


def test_the_first_half_stays_and_alternates_with_the_branch(random_variables):
    x = training.images(2, 5, 7, 8)
    block = Block(8, 1, None, "float32")
    v = random_variables(evaluated(block), x)
    y = jax.jit(lambda v: block.apply(v, x, False))(v)
    np.testing.assert_array_equal(y[..., ::2], x[..., :4])
    other = jax.jit(lambda v: block.apply(v, x.copy() * ([7] * 4 + [1] * 4), False))(v)
    np.testing.assert_array_equal(other[..., 1::2], y[..., 1::2])


def test_a_block_that_halves_the_size_makes_both_halves(random_variables):
    x = training.images(2, 5, 7, 6)
    block = Block(10, 2, None, "float32")
    v = random_variables(evaluated(block), x)
    assert jax.eval_shape(lambda v: block.apply(v, x, False), v).shape == (2, 3, 4, 10)
    assert v["params"]["shortcut_depthwise_conv"]["kernel"].shape == (3, 3, 1, 6)
    assert v["params"]["depthwise_conv"]["kernel"].shape == (3, 3, 1, 5)


@pytest.mark.nightly
def test_all_parameters_train_on_one_channel(random_variables):
    module, x = small(norm_group=4, dtype="bfloat16"), training.images(8, 32, 32, 1)
    training.assert_all_train(module, random_variables(module, x), x)


@pytest.mark.nightly
def test_remat_changes_neither_names_nor_numbers(random_variables):
    x = training.images(4, 32, 32, 3)
    training.assert_remat_changes_nothing(lambda remat: small(remat=remat),
                                          random_variables(small(), x), x)
