"""DINOv3 (arXiv 2508.10104): Vision Transformers with rotary positions and registers that were
trained without labels, mostly used frozen. The shifts, jitter and rescaling of the positions that
they were trained with are left out."""

from typing import Literal

import flax.linen as nn

from imgcls_jax.models import MODELS
from imgcls_jax.models._variants import takes
from imgcls_jax.models.vit import ViT
from imgcls_jax.registry import BelowOne
from imgcls_jax.types import Layout


def _timm(swiglu: bool) -> Layout:
    """timm/models/eva.py; with biases, its variants *_qkvb."""
    mlp = r"blocks.\1.mlp"
    hidden = (f"{mlp}.fc1_g", f"{mlp}.fc1_x") if swiglu else f"{mlp}.fc1"
    return Layout("torch", (
        (r"token", r"cls_token"),
        (r"registers", r"reg_token"),
        (r"patches", r"patch_embed.proj"),
        (r"block(\d+)/norm(\d)", r"blocks.\1.norm\2"),
        (r"block(\d+)/attention/qkv/bias", (r"blocks.\1.attn.q_bias", "",
                                            r"blocks.\1.attn.v_bias")),
        (r"block(\d+)/attention/qkv", r"blocks.\1.attn.qkv"),
        (r"block(\d+)/attention/out", r"blocks.\1.attn.proj"),
        (r"block(\d+)/layer_scale(\d)", r"blocks.\1.gamma_\2"),
        (r"block(\d+)/mlp/hidden", hidden),
        (r"block(\d+)/mlp/out", f"{mlp}.fc2"),
        (r"norm", r"norm"),
        (r"head", r"head")), patches=r"patches/kernel",
        tells=((r"blocks\.0\.attn\.q_bias", "model", {"qkv_bias": True}),))


def _transformers(swiglu: bool) -> Layout:
    """transformers/models/dinov3_vit: the model, or what is inside one with a head."""
    block, up = r"layer.\1", r"layer.\1.mlp.up_proj"
    hidden = (f"{block}.mlp.gate_proj", up) if swiglu else up
    return Layout("torch", (
        (r"token", r"embeddings.cls_token"),
        (r"registers", r"embeddings.register_tokens"),
        (r"patches", r"embeddings.patch_embeddings"),
        (r"block(\d+)/norm(\d)", rf"{block}.norm\2"),
        (r"block(\d+)/attention/qkv/bias", (rf"{block}.attention.q_proj.bias", "",
                                            rf"{block}.attention.v_proj.bias")),
        (r"block(\d+)/attention/qkv", tuple(f"{block}.attention.{part}_proj" for part in "qkv")),
        (r"block(\d+)/attention/out", rf"{block}.attention.o_proj"),
        (r"block(\d+)/layer_scale(\d)", rf"{block}.layer_scale\2.lambda1"),
        (r"block(\d+)/mlp/hidden", hidden),
        (r"block(\d+)/mlp/out", rf"{block}.mlp.down_proj"),
        (r"norm", r"norm"),
        (r"head", r"classifier")), patches=r"patches/kernel",
        unused=(r"(.*\.)?mask_token", r".*rope_embeddings\..*"),
        older=((r"(?:dinov3_vit|model)\.(?:model\.)?(.*)", r"\1"),),
        tells=((r"(.*\.)?layer\.0\.attention\.q_proj\.bias", "model", {"qkv_bias": True}),))


def _facts(swiglu: bool = False) -> dict:
    return {"image_size": 256, "head": "head", "paper": "arXiv 2508.10104",
            "layouts": {"timm": _timm(swiglu), "transformers": _transformers(swiglu)}}


def _options(num_classes: int, *, pool: Literal["token", "gap", "token_gap"] = "token",
             qkv_bias: bool = False, dropout: BelowOne = 0.0, drop_path: BelowOne = 0.0,
             head_bias: float = 0.0, zero_head: bool = True,
             remat: Literal[False, True, "values"] = False,
             dtype: str = "float32") -> nn.Module:
    """The signature of every variant. qkv_bias: of queries, keys and values; those of the published
    weights are zero."""


def _vit(num_classes, *shape, **options):
    return ViT(num_classes, 16, *shape, **{
        "layer_scale": 1e-5, "positions": "rotary", "registers": 4, "epsilon": 1e-5,
        "qkv_bias": False, **options})


@MODELS.register(params=21_971_944, **_facts())
@takes(_options)
def dinov3_s16(num_classes, **options):
    return _vit(num_classes, 384, 12, 6, **options)


@MODELS.register(params=29_068_264, **_facts(swiglu=True))
@takes(_options)
def dinov3_s16_plus(num_classes, **options):
    return _vit(num_classes, 384, 12, 6, swiglu=True, **options)


@MODELS.register(params=86_410_216, **_facts())
@takes(_options)
def dinov3_b16(num_classes, **options):
    return _vit(num_classes, 768, 12, 12, **options)


@MODELS.register(params=304_104_424, **_facts())
@takes(_options)
def dinov3_l16(num_classes, **options):
    return _vit(num_classes, 1024, 24, 16, **options)


@MODELS.register(params=841_790_440, **_facts(swiglu=True))
@takes(_options)
def dinov3_h16_plus(num_classes, **options):
    return _vit(num_classes, 1280, 32, 20, hidden=5120, swiglu=True, **options)
