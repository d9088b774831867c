"""Deep stems, averaging shortcuts and gates; numbers of whole networks are tests/pretrained's."""

import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from imgcls_jax.models.resnet import Block
from imgcls_jax.models.seresnet import ResNetD, seresnet50
from tests.models import training


def test_a_shortcut_averages_pixels_before_its_convolution(random_variables):
    x = training.images(2, 5, 4, 3)
    block = Block(4, 2, False, 1, 1, "average", 0.0, None, False, "float32", True)
    v = random_variables(SimpleNamespace(init=functools.partial(block.init, train=False)), x)
    v["params"]["norm2"] = jax.tree.map(np.zeros_like, v["params"]["norm2"])  # no branch
    rows = np.stack([x[:, :2].mean(1), x[:, 2:4].mean(1), x[:, 4]], 1)
    means = np.stack([rows[:, :, :2].mean(2), rows[:, :, 2:].mean(2)], 2)
    norm, seen = v["params"]["shortcut_norm"], v["batch_stats"]["shortcut_norm"]
    y = (means @ v["params"]["shortcut_conv"]["kernel"][0, 0] - seen["mean"]) / np.sqrt(
        seen["var"] + 1e-5) * norm["scale"] + norm["bias"]
    found = jax.jit(lambda v: block.apply(v, x, False))(v)
    np.testing.assert_allclose(found, np.maximum(y, 0), rtol=1e-4, atol=1e-6)


def test_widths_of_the_stem_and_of_the_gates():
    x = training.images(2, 32, 32, 3)
    params = jax.eval_shape(seresnet50(5).init, jax.random.key(0), x)["params"]
    assert params["stem_conv"]["kernel"].shape == (7, 7, 3, 64)
    gates = [params[f"stage{i}_block0"]["squeeze_excite"]["reduce"]["kernel"].shape[2:]
             for i in (1, 2, 3, 4)]
    assert gates == [(256, 16), (512, 32), (1024, 64), (2048, 128)]
    params = jax.eval_shape(ResNetD(5, (1,), width=16, gated=True).init, jax.random.key(0), x)[
        "params"]
    assert [params[f"stem_conv{i}"]["kernel"].shape for i in (1, 2, 3)] == [
        (3, 3, 3, 8), (3, 3, 8, 8), (3, 3, 8, 16)]
    # A sixteenth of 16 channels would be one: at least 8 are left.
    assert params["stage1_block0"]["squeeze_excite"]["reduce"]["kernel"].shape == (1, 1, 16, 8)


@pytest.mark.nightly
def test_all_parameters_train_on_one_channel(random_variables):
    module = ResNetD(5, (1, 1), True, 16, drop_path=0.3, norm_group=4, dtype="bfloat16", gated=True)
    x = training.images(8, 32, 32, 1)
    training.assert_all_train(module, random_variables(module, x), x)
