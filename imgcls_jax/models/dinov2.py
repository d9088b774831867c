"""DINOv2 (arXiv 2304.07193), with and without registers (arXiv 2309.16588): Vision Transformers
that were trained without labels, mostly used frozen."""

from typing import Literal

import flax.linen as nn

from imgcls_jax.models import MODELS, _vit_names
from imgcls_jax.models._variants import takes
from imgcls_jax.models.vit import ViT
from imgcls_jax.registry import BelowOne
from imgcls_jax.types import Layout


def _facebook(swiglu: bool) -> Layout:
    """facebookresearch/dinov2. timm has the same names but for the registers and SwiGLU; its table
    of positions lacks that of the class token where there are registers."""
    hidden, out = ("w12", "w3") if swiglu else ("fc1", "fc2")
    return Layout("torch", (
        (r"registers", r"register_tokens"),
        (r"block(\d+)/mlp/hidden", rf"blocks.\1.mlp.{hidden}"),
        (r"block(\d+)/mlp/out", rf"blocks.\1.mlp.{out}"),
        *_vit_names.TIMM.renames), patches=r"patches/kernel", unused=("mask_token",),
        older=((r"reg_token", r"register_tokens"),
               *(((r"(.*\.mlp)\.fc1\.(.*)", r"\1.w12.\2"), (r"(.*\.mlp)\.fc2\.(.*)", r"\1.w3.\2"))
                 if swiglu else ())))


def _transformers(swiglu: bool, registers: int) -> Layout:
    """transformers/models/dinov2 and dinov2_with_registers."""
    prefix = "dinov2_with_registers" if registers else "dinov2"
    block = rf"{prefix}.encoder.layer.\1"
    hidden, out = ("weights_in", "weights_out") if swiglu else ("fc1", "fc2")
    return Layout("torch", (
        (r"token", rf"{prefix}.embeddings.cls_token"),
        (r"registers", rf"{prefix}.embeddings.register_tokens"),
        (r"positions", rf"{prefix}.embeddings.position_embeddings"),
        (r"patches", rf"{prefix}.embeddings.patch_embeddings.projection"),
        (r"block(\d+)/norm(\d)", rf"{block}.norm\2"),
        (r"block(\d+)/attention/qkv", tuple(rf"{block}.attention.attention.{part}"
                                            for part in ("query", "key", "value"))),
        (r"block(\d+)/attention/out", rf"{block}.attention.output.dense"),
        (r"block(\d+)/layer_scale(\d)", rf"{block}.layer_scale\2.lambda1"),
        (r"block(\d+)/mlp/hidden", rf"{block}.mlp.{hidden}"),
        (r"block(\d+)/mlp/out", rf"{block}.mlp.{out}"),
        (r"norm", rf"{prefix}.layernorm"),
        (r"head", r"classifier")), patches=r"patches/kernel", unused=(r".*\.mask_token",),
        older=((r"(?:embeddings|encoder|layernorm)\..*", rf"{prefix}.\g<0>"),),
        tells=((r"classifier\.weight", "model", {"pool": "token_gap"}),))


def _facts(swiglu: bool = False, registers: int = 0) -> dict:
    return {"image_size": 518, "head": "head", "paper": "arXiv 2304.07193",
            "layouts": {"facebook": _facebook(swiglu),
                        "transformers": _transformers(swiglu, registers)}}


def _options(num_classes: int, *, pool: Literal["token", "gap", "token_gap"] = "token",
             dropout: BelowOne = 0.0, drop_path: BelowOne = 0.0, head_bias: float = 0.0,
             zero_head: bool = True,
             remat: Literal[False, True, "values", "keys_values"] = False,
             dtype: str = "float32") -> nn.Module:
    """The signature of every variant. pool: "token_gap" is that of the published linear heads."""


def _vit(num_classes, *shape, **options):
    return ViT(num_classes, 14, *shape, **{"layer_scale": 1e-5, **options})


@MODELS.register(params=22_441_192, **_facts())
@takes(_options)
def dinov2_s14(num_classes, **options):
    return _vit(num_classes, 384, 12, 6, **options)


@MODELS.register(params=22_442_728, **_facts(registers=4))
@takes(_options)
def dinov2_s14_reg4(num_classes, **options):
    return _vit(num_classes, 384, 12, 6, registers=4, **options)


@MODELS.register(params=87_348_712, **_facts())
@takes(_options)
def dinov2_b14(num_classes, **options):
    return _vit(num_classes, 768, 12, 12, **options)


@MODELS.register(params=87_351_784, **_facts(registers=4))
@takes(_options)
def dinov2_b14_reg4(num_classes, **options):
    return _vit(num_classes, 768, 12, 12, registers=4, **options)


@MODELS.register(params=305_392_616, **_facts())
@takes(_options)
def dinov2_l14(num_classes, **options):
    return _vit(num_classes, 1024, 24, 16, **options)


@MODELS.register(params=305_396_712, **_facts(registers=4))
@takes(_options)
def dinov2_l14_reg4(num_classes, **options):
    return _vit(num_classes, 1024, 24, 16, registers=4, **options)


@MODELS.register(params=1_138_016_232, **_facts(swiglu=True))
@takes(_options)
def dinov2_g14(num_classes, **options):
    return _vit(num_classes, 1536, 40, 24, hidden=4096, swiglu=True, **options)


@MODELS.register(params=1_138_022_376, **_facts(swiglu=True, registers=4))
@takes(_options)
def dinov2_g14_reg4(num_classes, **options):
    return _vit(num_classes, 1536, 40, 24, hidden=4096, swiglu=True, registers=4, **options)
