"""Swin Transformer v2 (arXiv 2111.09883), as torchvision builds it, with windows of 8 pixels; timm
has the same for 256 pixels, without the unused bias of the keys."""

import flax.linen as nn
import numpy as np

from imgcls_jax.layers import windows
from imgcls_jax.models import MODELS, swin
from imgcls_jax.models._variants import takes
from imgcls_jax.registry import BelowOne

NAMES = (("positions/hidden", "attn.cpb_mlp.0"), ("positions/out", "attn.cpb_mlp.2"),
         ("attention/logit_scale", "attn.logit_scale"))
TORCHVISION = (("attention/qkv", "attn.qkv"), *NAMES)
TIMM = (("attention/qkv/bias", ("attn.q_bias", "", "attn.v_bias")), *TORCHVISION)
OFFSETS = ("positions/hidden/kernel", "attn.relative_coords_table",
           lambda: windows.log_offsets(8).reshape(1, 15, 15, 2).astype(np.float32))
SHAPES = {"shapes": ((r".*\.logit_scale", (-1, 1, 1)),)}
IMAGENET = {"image_size": 256, "head": "head", "paper": "arXiv 2111.09883", "layouts": {
    "torchvision": swin.torchvision(TORCHVISION, (swin.index(8), OFFSETS), **SHAPES),
    "timm": swin.timm(TIMM, **SHAPES), "microsoft": swin.microsoft(TIMM, **SHAPES)}}


def _options(num_classes: int, *, drop_path: BelowOne = 0.0, remat: bool = False,
             dtype: str = "float32") -> nn.Module:
    """The signature of every variant."""


@MODELS.register(params=28_351_570, **IMAGENET)
@takes(_options, drop_path=0.2)
def swin_v2_t(num_classes, **options):
    return swin.Swin(num_classes, 96, (2, 2, 6, 2), (3, 6, 12, 24), 8, 2, **options)


@MODELS.register(params=49_737_442, **IMAGENET)
@takes(_options, drop_path=0.3)
def swin_v2_s(num_classes, **options):
    return swin.Swin(num_classes, 96, (2, 2, 18, 2), (3, 6, 12, 24), 8, 2, **options)


@MODELS.register(params=87_930_848, **IMAGENET)
@takes(_options, drop_path=0.5)
def swin_v2_b(num_classes, **options):
    return swin.Swin(num_classes, 128, (2, 2, 18, 2), (4, 8, 16, 32), 8, 2, **options)
