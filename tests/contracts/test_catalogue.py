"""Every published weight of a registered model fits it, as far as is known without the file."""

import functools

import jax
import jax.numpy as jnp
import pytest

from imgcls_jax.models import MODELS
from imgcls_jax.pretrained import catalogue

# Models of the catalogue that have no file here yet; a name leaves when it is registered.
AWAITED = {
    "alexnet", "convnext_base", "convnext_large", "convnext_small", "convnext_tiny",
    "deit_base_distilled_patch16_224", "deit_small_distilled_patch16_224",
    "deit_tiny_distilled_patch16_224", "densenet121", "densenet161", "densenet169", "densenet201",
    *(f"{prefix}efficientnet_b{n}" for prefix in ("", "tf_") for n in range(8)),
    "efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s", "googlenet", "inception_v3",
    "mixer_b16", "mixer_l16", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small",
    "resnext101_32x8d", "resnext101_64x4d", "resnext50_32x4d", "tf_efficientnetv2_l",
    "tf_efficientnetv2_m", "tf_efficientnetv2_s", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn",
    "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "wide_resnet101_2", "wide_resnet50_2"}


@functools.cache
def parameters(model: str, size: int) -> int:
    """Their number for images of another size than the model's own."""
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    module = MODELS.get(model)(1000)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("model", sorted(set(catalogue.models()) & set(MODELS.names())))
def test_weights_have_a_known_layout_and_as_many_parameters_as_the_model(model):
    facts = MODELS.facts(model)
    for tag, weights in catalogue.weights(model).items():
        assert weights.layout in facts["layouts"], tag
        if weights.params != facts["params"]:  # a table of positions goes with the size
            assert weights.image_size != facts["image_size"], tag
            assert parameters(model, weights.image_size) == weights.params, tag


def test_no_model_of_the_catalogue_is_unknown():
    assert set(catalogue.models()) - set(MODELS.names()) <= AWAITED
