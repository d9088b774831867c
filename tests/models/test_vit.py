"""ViT's parts against numpy and lax, published parameter counts, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from imgcls_jax.errors import ConfigError
from imgcls_jax.init import initialise
from imgcls_jax.layers.attention import SelfAttention
from imgcls_jax.layers.patches import patchify
from imgcls_jax.models.vit import ViT, sincos2d, vit_mini, vit_s16


def parameters(module, shape):
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.daily(2)
@pytest.mark.parametrize("size, options, count", [
    (384, {}, 22_196_584),
    (224, {"pool": "gap", "positions": "sincos2d", "representation": True}, 22_122_472),
    (224, {}, 22_050_664),
    (224, {"pool": "gap", "positions": "sincos2d"}, 21_974_632),
])
def test_vit_s16_has_the_published_number_of_parameters(size, options, count):
    assert parameters(vit_s16(1000, **options), (1, size, size, 3)) == count


def test_attention_equals_numpy(random_variables):
    with jax.enable_x64(True):
        x = np.random.default_rng(0).normal(size=(2, 5, 12))
        module = SelfAttention(heads=3, dtype="float64")
        v = random_variables(module, x)
        p = v["params"]
        q, k, v3 = np.split(x @ p["qkv"]["kernel"] + p["qkv"]["bias"], 3, -1)
        heads = []
        for i in range(3):
            part = slice(4 * i, 4 * i + 4)
            scores = np.exp(q[..., part] @ k[..., part].swapaxes(1, 2) / np.sqrt(4))
            heads.append(scores / scores.sum(-1, keepdims=True) @ v3[..., part])
        expected = np.concatenate(heads, -1) @ p["out"]["kernel"] + p["out"]["bias"]
        np.testing.assert_allclose(jax.jit(module.apply)(v, x), expected, rtol=1e-10)


def test_patches_times_a_kernel_are_a_convolution_with_it():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 8, 12, 3)), rng.normal(size=(4, 4, 3, 5))
    with jax.enable_x64(True):
        expected = lax.conv_general_dilated(x, kernel, (4, 4), "VALID",
                                            dimension_numbers=("NHWC", "HWIO", "NHWC"))
        patches, grid = patchify(x, 4)
    assert grid == (2, 3)
    np.testing.assert_allclose(patches @ kernel.reshape(-1, 5), expected.reshape(2, 6, 5))


def test_sincos_positions_equal_their_definition():
    table = sincos2d((2, 3), 8)
    for row in range(2):
        for column in range(3):
            x, y = ([axis, axis / 10_000] for axis in (column, row))
            expected = np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)])
            np.testing.assert_allclose(table[0, 3 * row + column], expected, atol=1e-7)


@pytest.mark.parametrize("size, fix", [(224, "to 221 or 238 pixels"), (10, "to 17 pixels")])
def test_an_image_that_does_not_divide_into_patches_says_which_sizes_would(size, fix):
    with pytest.raises(ConfigError, match=f"height of {size} pixels") as error:
        patchify(np.zeros((1, size, size, 3)), 17)
    assert fix in error.value.fix


@pytest.mark.parametrize("pool, positions, dtype", [
    ("token", "learned", "float32"),
    pytest.param("map", "sincos2d", "bfloat16", marks=pytest.mark.nightly),
])
def test_gradients_of_all_parameters_are_finite(
        pool, positions, dtype, random_variables):
    module = ViT(5, 4, 16, 1, 2, pool, positions, representation=True, dropout=0.1, drop_path=0.5,
                 drop_path_rule="constant", zero_head=False, stem=(4,), norm_group=2, dtype=dtype)
    x = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype(np.float32)
    v = random_variables(module, x)

    @jax.jit
    @jax.grad
    def gradient(params):
        y, _ = module.apply({**v, "params": params}, x, train=True, mutable=["batch_stats"],
                            rngs={"dropout": jax.random.key(1)})
        return -jax.nn.log_softmax(y)[:, 3].mean()

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(v["params"])):
        assert jnp.isfinite(leaf).all() and jnp.abs(leaf).max() > 0, path


def test_head_starts_at_its_bias_and_without_classes_features_come_out():
    x = np.ones((2, 8, 8, 3), np.float32)
    module = ViT(5, 4, 16, 1, 2, head_bias=-6.9)
    logits = jax.jit(module.apply)(initialise(module, x.shape, 0), x)
    np.testing.assert_allclose(logits, np.full((2, 5), -6.9), rtol=1e-6)
    variables = jax.eval_shape(ViT(0, 4, 16, 1, 2).init, jax.random.key(0), x)
    assert "head" not in variables["params"]
    assert jax.eval_shape(ViT(0, 4, 16, 1, 2).apply, variables, x).shape == (2, 16)


def test_paths_drop_in_training_alone_by_the_linear_rule(random_variables):
    module = vit_mini(10, patch_size=2, width=8, heads=2, depth=2, drop_path=1.0, stem=())
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    v = random_variables(module, x)
    first = {"params": {k: leaf for k, leaf in v["params"].items() if k != "block1"}}
    whole = jax.jit(lambda v: module.apply(v, x, train=True, rngs={"dropout": jax.random.key(0)}))
    shallow = vit_mini(10, patch_size=2, width=8, heads=2, depth=1, stem=())
    np.testing.assert_allclose(whole(v), jax.jit(shallow.apply)(first, x), rtol=1e-5)
    assert not np.allclose(jax.jit(module.apply)(v, x), whole(v))
