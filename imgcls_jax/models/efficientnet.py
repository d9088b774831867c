"""EfficientNet B0 to B7, as torchvision builds them, and as TensorFlow does (names of timm)."""

import math

import flax.linen as nn

from imgcls_jax.layers.inverted_residual import round_channels
from imgcls_jax.models import MODELS
from imgcls_jax.models._efficientnet import EfficientNet, Stage, keras_layout, layouts, variant

PAPER = "arXiv 1905.11946"
STAGES = (Stage(1, 3, 1, 16, 1), Stage(6, 3, 2, 24, 2), Stage(6, 5, 2, 40, 2),
          Stage(6, 3, 2, 80, 3), Stage(6, 5, 1, 112, 3), Stage(6, 5, 2, 192, 4),
          Stage(6, 3, 1, 320, 1))
LAYOUTS = layouts(STAGES)
# torchvision's B5 to B7 have another epsilon than timm's; up to B4 both are the same.
TORCH = {"head": "head", "paper": PAPER, "layouts": LAYOUTS}
TORCHVISION = {**TORCH, "layouts": {"torchvision": LAYOUTS["torchvision"]}}
LARGE = {"momentum": 0.99, "epsilon": 1e-3}  # torchvision's BatchNorm of B5 to B7
TENSORFLOW = {"form": "tensorflow", **LARGE}


def _stages(width, depth):
    """The stages of B0 with every width and depth multiplied and rounded (section 3.3)."""
    return tuple(stage._replace(features=round_channels(width * stage.features),
                                blocks=math.ceil(depth * stage.blocks)) for stage in STAGES)


def _tensorflow(width, depth) -> dict:
    """Facts of a variant with TensorFlow's weights, which timm and Keras publish."""
    return {**TORCH, "layouts": {"timm": LAYOUTS["timm"],
                                 "keras": keras_layout(_stages(width, depth))}}


def _scaled(num_classes, width, depth, **options):
    stages = _stages(width, depth)
    return EfficientNet(num_classes, stages, round_channels(width * 32),
                        round_channels(width * 1280), **options)


@MODELS.register(params=5_288_548, image_size=224, **TORCH)
@variant(dropout=0.2)
def efficientnet_b0(num_classes, **options) -> nn.Module:
    return _scaled(num_classes, 1.0, 1.0, **options)


@MODELS.register(params=7_794_184, image_size=240, **TORCH)
@variant(dropout=0.2)
def efficientnet_b1(num_classes, **options) -> nn.Module:
    return _scaled(num_classes, 1.0, 1.1, **options)


@MODELS.register(params=9_109_994, image_size=288, **TORCH)
@variant(dropout=0.3)
def efficientnet_b2(num_classes, **options) -> nn.Module:
    return _scaled(num_classes, 1.1, 1.2, **options)


@MODELS.register(params=12_233_232, image_size=300, **TORCH)
@variant(dropout=0.3)
def efficientnet_b3(num_classes, **options) -> nn.Module:
    return _scaled(num_classes, 1.2, 1.4, **options)


@MODELS.register(params=19_341_616, image_size=380, **TORCH)
@variant(dropout=0.4)
def efficientnet_b4(num_classes, **options) -> nn.Module:
    return _scaled(num_classes, 1.4, 1.8, **options)


@MODELS.register(params=30_389_784, image_size=456, **TORCHVISION)
@variant(dropout=0.4)
def efficientnet_b5(num_classes, **options) -> nn.Module:
    return _scaled(num_classes, 1.6, 2.2, **LARGE, **options)


@MODELS.register(params=43_040_704, image_size=528, **TORCHVISION)
@variant(dropout=0.5)
def efficientnet_b6(num_classes, **options) -> nn.Module:
    return _scaled(num_classes, 1.8, 2.6, **LARGE, **options)


@MODELS.register(params=66_347_960, image_size=600, **TORCHVISION)
@variant(dropout=0.5)
def efficientnet_b7(num_classes, **options) -> nn.Module:
    return _scaled(num_classes, 2.0, 3.1, **LARGE, **options)


@MODELS.register(params=5_288_548, image_size=224, **_tensorflow(1.0, 1.0))
@variant(dropout=0.2)
def tf_efficientnet_b0(num_classes, **options) -> nn.Module:
    return _scaled(num_classes, 1.0, 1.0, **TENSORFLOW, **options)


@MODELS.register(params=7_794_184, image_size=240, **_tensorflow(1.0, 1.1))
@variant(dropout=0.2)
def tf_efficientnet_b1(num_classes, **options) -> nn.Module:
    return _scaled(num_classes, 1.0, 1.1, **TENSORFLOW, **options)


@MODELS.register(params=9_109_994, image_size=260, **_tensorflow(1.1, 1.2))
@variant(dropout=0.3)
def tf_efficientnet_b2(num_classes, **options) -> nn.Module:
    return _scaled(num_classes, 1.1, 1.2, **TENSORFLOW, **options)


@MODELS.register(params=12_233_232, image_size=300, **_tensorflow(1.2, 1.4))
@variant(dropout=0.3)
def tf_efficientnet_b3(num_classes, **options) -> nn.Module:
    return _scaled(num_classes, 1.2, 1.4, **TENSORFLOW, **options)


@MODELS.register(params=19_341_616, image_size=380, **_tensorflow(1.4, 1.8))
@variant(dropout=0.4)
def tf_efficientnet_b4(num_classes, **options) -> nn.Module:
    return _scaled(num_classes, 1.4, 1.8, **TENSORFLOW, **options)


@MODELS.register(params=30_389_784, image_size=456, **_tensorflow(1.6, 2.2))
@variant(dropout=0.4)
def tf_efficientnet_b5(num_classes, **options) -> nn.Module:
    return _scaled(num_classes, 1.6, 2.2, **TENSORFLOW, **options)


@MODELS.register(params=43_040_704, image_size=528, **_tensorflow(1.8, 2.6))
@variant(dropout=0.5)
def tf_efficientnet_b6(num_classes, **options) -> nn.Module:
    return _scaled(num_classes, 1.8, 2.6, **TENSORFLOW, **options)


@MODELS.register(params=66_347_960, image_size=600, **_tensorflow(2.0, 3.1))
@variant(dropout=0.5)
def tf_efficientnet_b7(num_classes, **options) -> nn.Module:
    return _scaled(num_classes, 2.0, 3.1, **TENSORFLOW, **options)
