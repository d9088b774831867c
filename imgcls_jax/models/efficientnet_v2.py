"""EfficientNetV2 S, M, L, as torchvision builds them, and as TensorFlow does (names of timm)."""

import flax.linen as nn

from imgcls_jax.models import MODELS
from imgcls_jax.models._efficientnet import EfficientNet, Stage, layouts, variant

PAPER = "arXiv 2104.00298"
S = (Stage(1, 3, 1, 24, 2, True), Stage(4, 3, 2, 48, 4, True), Stage(4, 3, 2, 64, 4, True),
     Stage(4, 3, 2, 128, 6), Stage(6, 3, 1, 160, 9), Stage(6, 3, 2, 256, 15))
M = (Stage(1, 3, 1, 24, 3, True), Stage(4, 3, 2, 48, 5, True), Stage(4, 3, 2, 80, 5, True),
     Stage(4, 3, 2, 160, 7), Stage(6, 3, 1, 176, 14), Stage(6, 3, 2, 304, 18),
     Stage(6, 3, 1, 512, 5))
L = (Stage(1, 3, 1, 32, 4, True), Stage(4, 3, 2, 64, 7, True), Stage(4, 3, 2, 96, 7, True),
     Stage(4, 3, 2, 192, 10), Stage(6, 3, 1, 224, 19), Stage(6, 3, 2, 384, 25),
     Stage(6, 3, 1, 640, 7))
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def _facts(stages, publisher):
    return {"head": "head", "paper": PAPER, "layouts": {publisher: layouts(stages)[publisher]}}


def _build(num_classes, stages, **options):
    """BatchNorm has epsilon 1e-3 and momentum 0.9 in both forms (google/automl, hparams.py)."""
    return EfficientNet(num_classes, stages, stages[0].features, 1280, epsilon=1e-3, **options)


@MODELS.register(params=21_458_488, image_size=384, **_facts(S, "torchvision"))
@variant(dropout=0.2)
def efficientnet_v2_s(num_classes, **options) -> nn.Module:
    return _build(num_classes, S, **options)


@MODELS.register(params=54_139_356, image_size=480, **_facts(M, "torchvision"))
@variant(dropout=0.3)
def efficientnet_v2_m(num_classes, **options) -> nn.Module:
    return _build(num_classes, M, **options)


@MODELS.register(params=118_515_272, image_size=480, **HALF, **_facts(L, "torchvision"))
@variant(dropout=0.4)
def efficientnet_v2_l(num_classes, **options) -> nn.Module:
    return _build(num_classes, L, **options)


@MODELS.register(params=21_458_488, image_size=384, **HALF, **_facts(S, "timm"))
@variant(dropout=0.2)
def tf_efficientnetv2_s(num_classes, **options) -> nn.Module:
    return _build(num_classes, S, form="tensorflow", **options)


@MODELS.register(params=54_139_356, image_size=480, **HALF, **_facts(M, "timm"))
@variant(dropout=0.3)
def tf_efficientnetv2_m(num_classes, **options) -> nn.Module:
    return _build(num_classes, M, form="tensorflow", **options)


@MODELS.register(params=118_515_272, image_size=480, **HALF, **_facts(L, "timm"))
@variant(dropout=0.4)
def tf_efficientnetv2_l(num_classes, **options) -> nn.Module:
    return _build(num_classes, L, form="tensorflow", **options)
