"""SqueezeNet in training and away from its published size; its numbers are tests/pretrained's."""

import jax
import numpy as np
import pytest

from imgcls_jax.models.squeezenet import SqueezeNet
from tests.models import training


def small(classes=5, **options):
    return SqueezeNet(classes, (8, 3), (3,), ((4, 8), (4, 8)), **options)


def test_the_classifier_is_the_mean_over_pixels_of_what_is_positive(random_variables):
    x = training.images(2, 32, 24, 3)
    v = random_variables(small(), x)
    logits, kept = jax.jit(lambda v: small().apply(v, x, capture_intermediates=True))(v)
    last = np.asarray(kept["intermediates"]["fire3"]["__call__"][0])
    head = v["params"]["head"]
    expected = np.maximum(last @ head["kernel"] + head["bias"], 0).mean((1, 2))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    features = jax.jit(small(0).apply)(v, x)
    np.testing.assert_allclose(features, last.mean((1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.nightly
def test_all_parameters_train_on_one_channel(random_variables):
    x = training.images(8, 32, 32, 1)
    module = small(dtype="bfloat16", dropout=0.1)
    training.assert_all_train(module, random_variables(module, x), x)


@pytest.mark.nightly
def test_remat_changes_neither_names_nor_numbers(random_variables):
    x = training.images(4, 32, 32, 3)
    training.assert_remat_changes_nothing(lambda remat: small(remat=remat),
                                          random_variables(small(), x), x)
