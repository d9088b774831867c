"""MaxViT in training and at other sizes; its numbers are tests/pretrained's."""

import jax
import numpy as np
import pytest

from imgcls_jax.errors import ConfigError
from imgcls_jax.models.maxvit import MaxViT, maxvit_t
from tests.models import training


def small(num_classes=5, blocks=(1,), **options):
    return MaxViT(num_classes, 8, blocks, (32, 64)[:len(blocks)], 2, **options)


@pytest.mark.nightly
def test_five_branches_of_a_block_drop_in_training_alone_by_the_linear_rule():
    rates = training.drop_path_rates(maxvit_t(5), training.images(2, 224, 224, 3))
    np.testing.assert_allclose(rates, np.repeat(np.linspace(0, 0.2, 11), 5))


@pytest.mark.nightly
def test_all_parameters_train_on_one_channel(random_variables):
    module, x = small(blocks=(2,), drop_path=0.1, dtype="bfloat16"), training.images(8, 8, 16, 1)
    training.assert_all_train(module, random_variables(module, x), x)


@pytest.mark.nightly
def test_remat_changes_neither_names_nor_numbers(random_variables):
    plain, remat = small(), small(remat=True)
    x = training.images(4, 16, 16, 3)
    v = random_variables(plain, x)
    assert "remat" in str(jax.make_jaxpr(lambda v: remat.apply(v, x))(v))
    (loss, gradients), (again, others) = (training.loss_and_gradients(m, v, x)
                                          for m in (plain, remat))
    np.testing.assert_allclose(loss, again, rtol=1e-5)
    # The bias of the norm before the convolution cancels in the next one: its gradient is rounding.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6),
                 gradients, others)


def test_features_are_what_the_head_receives_and_maps_have_whole_windows(random_variables):
    x = training.images(2, 15, 32, 3)  # maps of 4 x 8 pixels
    v = random_variables(small(), x)
    features = jax.jit(small(0).apply)(v, x)
    assert features.shape == (2, 32) and np.abs(features).max() <= 1
    logits = features @ v["params"]["head"]["kernel"]
    np.testing.assert_allclose(jax.jit(small().apply)(v, x), logits, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match=r"(?s)256x224 pixels gives maps.*multiple of 224"):
        jax.eval_shape(maxvit_t(5).init, jax.random.key(0), training.images(1, 256, 224, 3))
