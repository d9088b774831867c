"""DeiT (arXiv 2012.12877) with a distillation token, and DeiT III (arXiv 2204.07118).

Without distillation, DeiT is vit_ti16, vit_s16 and vit_b16 with another recipe.
"""

import dataclasses
from typing import Literal

import flax.linen as nn

from imgcls_jax.models import MODELS, _vit_names
from imgcls_jax.models._variants import takes
from imgcls_jax.models.vit import ViT
from imgcls_jax.registry import BelowOne
from imgcls_jax.types import Layout

TIMM = Layout("torch", (  # timm/models/deit.py
    (r"token_distillation", r"dist_token"),
    (r"head_distillation", r"head_dist"),
    *_vit_names.TIMM.renames), patches=_vit_names.TIMM.patches)
# DeiTForImageClassificationWithTeacher, and DeiTForImageClassification without the second head.
DISTILLED = _vit_names.transformers(
    "deit", (r"token_distillation", r"deit.embeddings.distillation_token"),
    (r"head_distillation", r"distillation_classifier"), (r"head", r"cls_classifier"))
CLASS = dataclasses.replace(
    _vit_names.transformers("deit", *DISTILLED.renames[:1]),
    tells=((r"classifier\.weight", "model", {"distillation_head": False}),))
DEIT3 = {"image_size": 224, "head": "head", "paper": "arXiv 2204.07118", "layouts": {"timm": TIMM}}
DEIT = {**DEIT3, "paper": "arXiv 2012.12877",
        "layouts": {"timm": TIMM, "transformers": DISTILLED, "transformers_class": CLASS}}


def _options(num_classes: int, *, distillation_head: bool = True, dropout: BelowOne = 0.0,
             drop_path: BelowOne = 0.1, head_bias: float = 0.0,
             gelu: Literal["exact", "tanh"] = "exact",
             remat: Literal[False, True, "values", "keys_values"] = False,
             dtype: str = "float32") -> nn.Module:
    """The signature of the distilled variants."""


def _options3(num_classes: int, *, pool: Literal["token", "gap", "map"] = "token",
              dropout: BelowOne = 0.0, drop_path: BelowOne = 0.05,
              drop_path_rule: Literal["linear", "constant"] = "constant",
              layer_scale: float | None = 1e-4, head_bias: float = 0.0,
              gelu: Literal["exact", "tanh"] = "exact",
              remat: Literal[False, True, "values", "keys_values"] = False,
              dtype: str = "float32") -> nn.Module:
    """The signature of DeiT III; defaults as in its authors' models_v2.py and recipes."""


@MODELS.register(params=5_910_800, **DEIT)
@takes(_options)
def deit_ti16_distilled(num_classes, **options):
    return ViT(num_classes, 16, 192, 12, 3, distilled=True, kernels="normal", **options)


@MODELS.register(params=22_436_432, **DEIT)
@takes(_options)
def deit_s16_distilled(num_classes, **options):
    return ViT(num_classes, 16, 384, 12, 6, distilled=True, kernels="normal", **options)


@MODELS.register(params=87_338_192, **DEIT)
@takes(_options)
def deit_b16_distilled(num_classes, **options):
    return ViT(num_classes, 16, 768, 12, 12, distilled=True, kernels="normal", **options)


@MODELS.register(params=22_059_496, **DEIT3)
@takes(_options3)
def deit3_s16(num_classes, **options):
    return ViT(num_classes, 16, 384, 12, 6, token_position=False, kernels="normal", **options)


@MODELS.register(params=38_849_512, **DEIT3)
@takes(_options3)
def deit3_m16(num_classes, **options):
    return ViT(num_classes, 16, 512, 12, 8, token_position=False, kernels="normal", **options)


@MODELS.register(params=86_585_320, **DEIT3)
@takes(_options3, drop_path=0.2)
def deit3_b16(num_classes, **options):
    return ViT(num_classes, 16, 768, 12, 12, token_position=False, kernels="normal", **options)


@MODELS.register(params=304_374_760, **DEIT3)
@takes(_options3, drop_path=0.45)
def deit3_l16(num_classes, **options):
    return ViT(num_classes, 16, 1024, 24, 16, token_position=False, kernels="normal", **options)


@MODELS.register(params=632_126_440, **DEIT3)
@takes(_options3, drop_path=0.6)
def deit3_h14(num_classes, **options):
    return ViT(num_classes, 14, 1280, 32, 16, token_position=False, kernels="normal", **options)
