"""Files with real weights, of the packages that the extra `test` installs."""

import functools

import jax
import numpy as np
import pytest

from experiments.parity import published
from imgcls_jax import tree
from imgcls_jax.models import MODELS
from imgcls_jax.pretrained import load
from imgcls_jax.types import ModelSpec
from tests import abstract


@pytest.mark.daily(1)
@pytest.mark.parametrize("model, size", published.SIZES.items())
def test_logits_of_photos_are_those_of_torch_with_the_same_file(model, size):
    spec = ModelSpec(name=model, **MODELS.facts(model))
    _, wanted = abstract.init(model)
    found = load.read(published.file(model), spec, tree.flatten(wanted))
    assert found.source.endswith("(efficientnet_pytorch layout)")
    variables = load.into(wanted, found, spec)
    logits = jax.jit(functools.partial(MODELS.get(model)(1000).apply, train=False))(
        variables, published.photos(size))
    with np.load(published.OUT) as recorded:
        error = np.abs(logits[:, ::published.EVERY] - recorded[f"logits:{model}"]).max()
        assert error < 1e-4 * recorded[f"sd:{model}"]
