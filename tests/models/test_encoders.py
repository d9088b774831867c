"""What frozen encoders (DINOv2, DINOv3, SigLIP) add to a Vision Transformer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.parity import compare, rule
from imgcls_jax import features, tree
from imgcls_jax.errors import CheckpointError, ConfigError
from imgcls_jax.layers.attention import rotate
from imgcls_jax.models import MODELS
from imgcls_jax.models.vit import ViT, rotation2d
from imgcls_jax.pretrained import load
from imgcls_jax.types import ModelSpec
from tests import abstract

SMALL = functools.partial(ViT, 5, 8, 32, 2, 2)
IMAGES = jnp.asarray(rule.images(32))


def test_a_product_of_turned_queries_and_keys_depends_on_their_distance_alone():
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 16))
    cosines, sines = rotation2d((4, 6), 16, others=1)
    with jax.enable_x64(True):
        turned_q, turned_k = (np.asarray(rotate(np.tile(x, (1, 25, 1, 1)), cosines, sines))[0, :, 0]
                              for x in (q, k))
    np.testing.assert_array_equal(turned_q[0], q)  # the class token is not turned
    products = (turned_q[1:] @ turned_k[1:].T).reshape(4, 6, 4, 6)
    np.testing.assert_allclose(products[1, 2, 2, 5], products[0, 0, 1, 3], rtol=1e-12)
    np.testing.assert_allclose(products[3, 4, 1, 0], products[2, 5, 0, 1], rtol=1e-12)
    assert abs(products[1, 2, 2, 5] - products[1, 2, 2, 4]) > 1e-3


@pytest.mark.daily(1)
@pytest.mark.parametrize("pool, width", [("token_gap", 64), ("token", 32), ("gap", 32)])
def test_registers_take_part_in_attention_and_in_no_pooling(pool, width):
    module = SMALL(pool=pool, registers=3, positions="rotary").clone(num_classes=0)
    variables = jax.jit(module.init)(jax.random.key(0), IMAGES)
    apply = jax.jit(module.apply)
    found = apply(variables, IMAGES)
    tokens = jax.jit(lambda v: features.intermediates(module, v, IMAGES, pattern="norm"))(
        variables)["norm"]
    patches = tokens[:, -16:].mean(1)
    expected = {"token": tokens[:, 0], "gap": patches,
                "token_gap": jnp.concatenate((tokens[:, 0], patches), -1)}[pool]
    assert found.shape == (2, width) and tokens.shape[1] == ("token" in pool) + 3 + 16
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    variables["params"]["registers"] = jax.random.normal(jax.random.key(1), (1, 3, 32))
    assert np.abs(apply(variables, IMAGES) - found).max() > 1e-2


@pytest.mark.parametrize("options", [{"positions": "rotary"}, {"qk_norm": True}])
def test_keys_that_are_normed_or_rotated_are_not_computed_again(options):
    module = SMALL(remat="keys_values", **options)
    with pytest.raises(ConfigError, match="keys that are normed or rotated"):
        jax.eval_shape(module.init, jax.random.key(0), IMAGES)


@pytest.mark.nightly
@pytest.mark.parametrize("remat", [True, "values"])
def test_recomputing_gives_the_same_gradients(remat):
    options = {"positions": "rotary", "qk_norm": True, "swiglu": True, "qkv_bias": False}
    plain, again = (SMALL(remat=how, **options) for how in (False, remat))
    variables = jax.jit(plain.init)(jax.random.key(0), IMAGES)

    def gradients(module):
        return jax.jit(jax.grad(lambda v: (module.apply(v, IMAGES, train=True) ** 2).sum()))(
            variables)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
                 gradients(plain), gradients(again))


@pytest.mark.parametrize("case, arguments", [
    ("hf_dinov3-vits16", {"qkv_bias": True}),
    pytest.param("hf_siglip-base-patch16-224", {}, marks=pytest.mark.nightly)])
def test_an_encoder_without_a_head_is_read_for_a_new_one(tmp_path, case, arguments):
    tensors = rule.state_dict(compare.load(case))
    name = compare.ours(case)[0]
    spec = ModelSpec(name=name, **MODELS.facts(name))
    np.savez(tmp_path / "w.npz", **tensors)
    assert load.told(tmp_path / "w.npz", spec)["model"] == arguments
    _, wanted = abstract.init(name, **arguments)
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), wanted)
    found = load.read(tmp_path / "w.npz", spec, tree.flatten(wanted))
    with pytest.raises(CheckpointError, match="start with a new head"):
        load.into(fresh, found, spec)
    made = tree.flatten(load.into(fresh, found, spec, reset=("head",)))
    assert not made["params/head/kernel"].any()
    assert all(np.any(leaf) for path, leaf in made.items() if "/head/" not in path)
