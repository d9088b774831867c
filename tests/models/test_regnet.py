"""RegNet's plan of widths, and training; its numbers are tests/pretrained's."""

import jax
import numpy as np
import pytest

from imgcls_jax.models.regnet import RegNet, plan, regnet_y_400mf
from tests.models import training

STAGES = ((1, 8, 4), (2, 16, 4))


@pytest.mark.parametrize("arguments, stages", [
    # RegNetX-3.2GF of the paper's figure 17.
    ((25, 88, 26.31, 2.25, 48), ((2, 96, 48), (6, 192, 48), (15, 432, 48), (2, 1008, 48))),
    # RegNetY-8GF: 192 channels become 224, where the authors have 168, an eighth less.
    ((17, 192, 76.82, 2.19, 56), ((2, 224, 56), (4, 448, 56), (10, 896, 56), (1, 2016, 56)))])
def test_widths_are_those_of_the_rule(arguments, stages):
    assert plan(*arguments) == stages


def test_the_gate_is_narrower_by_the_input_and_shortcuts_are_at_the_start_of_stages():
    x = training.images(2, 32, 32, 3)
    params = jax.eval_shape(regnet_y_400mf(5).init, jax.random.key(0), x)["params"]
    gates = [params[f"stage{i}_block0"]["squeeze_excite"]["reduce"]["kernel"].shape
             for i in (1, 2, 3, 4)]
    assert gates == [(1, 1, 48, 8), (1, 1, 104, 12), (1, 1, 208, 26), (1, 1, 440, 52)]
    assert [name for name, block in params.items() if "shortcut_conv" in block] == [
        f"stage{i}_block0" for i in (1, 2, 3, 4)]


def test_paths_drop_by_the_linear_rule(random_variables):
    x = training.images(2, 16, 16, 3)
    assert training.drop_path_rates(RegNet(0, STAGES, drop_path=0.5), x) == [0, 0.25, 0.5]


@pytest.mark.nightly
def test_with_zero_init_a_block_within_a_stage_is_the_identity():
    x = training.images(2, 16, 16, 3)
    module = RegNet(0, STAGES, gated=True, zero_init=True)
    features, v = jax.jit(module.init_with_output)(jax.random.key(0), x)
    shorter = RegNet(0, ((1, 8, 4), (1, 16, 4)), gated=True, zero_init=True)
    kept = {kind: {name: part for name, part in parts.items() if name != "stage2_block1"}
            for kind, parts in v.items()}
    np.testing.assert_allclose(jax.jit(shorter.apply)(kept, x), features, rtol=1e-6)


@pytest.mark.nightly
def test_all_parameters_train_on_one_channel(random_variables):
    module = RegNet(5, STAGES, gated=True, drop_path=0.3, norm_group=4, dtype="bfloat16")
    x = training.images(8, 16, 16, 1)
    training.assert_all_train(module, random_variables(module, x), x)


@pytest.mark.nightly
def test_remat_changes_neither_names_nor_numbers(random_variables):
    def build(remat):
        return RegNet(5, STAGES, gated=True, remat=remat, drop_path=0.5)

    x = training.images(4, 16, 16, 3)
    training.assert_remat_changes_nothing(build, random_variables(build(False), x), x)
