"""ResNets of Keras: what parity does not see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgcls_jax import tree
from imgcls_jax.models.keras_resnet import KerasResNet
from tests.models import training


def small(version, blocks=(1, 2), **options):
    return KerasResNet(3, blocks, version, width=4, **{"norm_group": 2, **options})


@pytest.mark.nightly
@pytest.mark.parametrize("version", [1, 2])
def test_all_train(version, random_variables):
    x = training.images(4, 16, 16, 1)
    module = small(version, (2,))
    v = random_variables(module, x)
    for path, leaf in tree.flatten(training.loss_and_gradients(module, v, x)[1]).items():
        assert jnp.isfinite(leaf).all(), path
        # BatchNorm takes the mean off its input, and with it the bias of a convolution.
        assert path.endswith(("conv/bias", "conv1/bias", "conv2/bias", "conv3/bias")) or (
            jnp.abs(leaf).max() > 0), path


@pytest.mark.nightly
def test_remat_changes_nothing(random_variables):
    x = training.images(4, 16, 16, 1)
    plain, remat = small(2, (1,)), small(2, (1,), remat=True)
    v = random_variables(plain, x)
    assert "remat" in str(jax.make_jaxpr(lambda v: remat.apply(v, x))(v))
    # An absolute bound: the gradient of a bias before BatchNorm is rounding alone.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5),
                 *(training.loss_and_gradients(module, v, x) for module in (plain, remat)))


@pytest.mark.parametrize("version, sizes", [(1, (8, 4, 4)), (2, (4, 4, 4))])
def test_version_1_strides_in_the_first_block_of_a_stage_and_2_in_the_last(version, sizes):
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    _, state = jax.eval_shape(lambda key, x: small(version).init_with_output(
        key, x, capture_intermediates=True), jax.random.key(0), x)
    maps = state["intermediates"]
    found = tuple(maps[name]["__call__"][0].shape[1]
                  for name in ("stage1_block0", "stage2_block0", "stage2_block1"))
    assert found == sizes


def test_without_classes_it_gives_the_pooled_features():
    x = jax.ShapeDtypeStruct((2, 40, 50, 3), jnp.float32)
    for version in (1, 2):
        module = KerasResNet(0, (1, 1), version, width=4)
        features, v = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
        assert features.shape == (2, 32) and "head" not in v["params"]
