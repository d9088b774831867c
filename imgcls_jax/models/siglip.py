"""The image towers of SigLIP (arXiv 2303.15343) and SigLIP 2 (arXiv 2502.14786): Vision
Transformers with attention pooling. With num_classes 0 the output is the embedding that those of
texts are compared with."""

import dataclasses
from typing import Literal

import flax.linen as nn

from imgcls_jax.models import MODELS, _vit_names
from imgcls_jax.models._variants import takes
from imgcls_jax.models.vit import ViT
from imgcls_jax.registry import BelowOne
from imgcls_jax.types import Layout

TIMM = dataclasses.replace(_vit_names.TIMM, tells=())


def _transformers(width: int) -> Layout:
    """transformers/models/siglip: a whole model, its image tower, or what is inside that."""
    block, pool = r"vision_model.encoder.layers.\1", r"vision_model.head"
    return Layout("torch", (
        (r"positions", r"vision_model.embeddings.position_embedding.weight"),
        (r"patches", r"vision_model.embeddings.patch_embedding"),
        (r"block(\d+)/norm(\d)", rf"{block}.layer_norm\2"),
        (r"block(\d+)/attention/qkv", tuple(f"{block}.self_attn.{part}_proj" for part in "qkv")),
        (r"block(\d+)/attention/out", rf"{block}.self_attn.out_proj"),
        (r"block(\d+)/mlp/hidden", rf"{block}.mlp.fc1"),
        (r"block(\d+)/mlp/out", rf"{block}.mlp.fc2"),
        (r"norm", r"vision_model.post_layernorm"),
        (r"pool/probe", rf"{pool}.probe"),
        *((rf"pool/{part}/{ours}", rf"{pool}.attention.in_proj_{theirs}[{i}/3]")
          for i, part in enumerate(("query", "key", "value"))
          for ours, theirs in (("kernel", "weight"), ("bias", "bias"))),
        (r"pool/out", rf"{pool}.attention.out_proj"),
        (r"pool/norm", rf"{pool}.layernorm"),
        (r"pool/mlp/hidden", rf"{pool}.mlp.fc1"),
        (r"pool/mlp/out", rf"{pool}.mlp.fc2"),
        (r"head", r"classifier")), patches=r"patches/kernel",
        shapes=((r".*position_embedding\.weight", (-1, width)),),
        older=((r"(?:embeddings|encoder|post_layernorm|head)\..*", r"vision_model.\g<0>"),),
        unused=(r"text_model\..*", r"logit_(scale|bias)"))


def _facts(width: int, heads: int, image_size: int) -> dict:
    big_vision = _vit_names.by_head(_vit_names.BIG_VISION, heads, width)
    big_vision = dataclasses.replace(big_vision, tells=())
    return {"image_size": image_size, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5),
            "head": "head", "paper": "arXiv 2303.15343",
            "layouts": {"timm": TIMM, "transformers": _transformers(width),
                        "big_vision": big_vision}}


def _options(num_classes: int, *, dropout: BelowOne = 0.0, drop_path: BelowOne = 0.0,
             head_bias: float = 0.0, zero_head: bool = True,
             gelu: Literal["exact", "tanh"] = "tanh",
             remat: Literal[False, True, "values", "keys_values"] = False,
             dtype: str = "float32") -> nn.Module:
    """The signature of every variant. GELU is the exact one in timm's SigLIP of patches of 16 and
    14, which its weights were not trained with."""


def _vit(num_classes, *shape, **options):
    return ViT(num_classes, *shape, **{"pool": "map", "gelu": "tanh", **options})


@MODELS.register(params=93_653_224, **_facts(768, 12, 224))
@takes(_options)
def siglip_b16(num_classes, **options):
    return _vit(num_classes, 16, 768, 12, 12, **options)


@MODELS.register(params=95_321_320, **_facts(768, 12, 256))
@takes(_options)
def siglip_b32(num_classes, **options):
    return _vit(num_classes, 32, 768, 12, 12, **options)


@MODELS.register(params=316_981_224, **_facts(1024, 16, 256))
@takes(_options)
def siglip_l16(num_classes, **options):
    return _vit(num_classes, 16, 1024, 24, 16, **options)


@MODELS.register(params=428_833_704, **_facts(1152, 16, 224))
@takes(_options)
def siglip_so400m14(num_classes, **options):
    return _vit(num_classes, 14, 1152, 27, 16, hidden=4304, **options)


@MODELS.register(params=429_041_064, **_facts(1152, 16, 256))
@takes(_options)
def siglip_so400m16(num_classes, **options):
    return _vit(num_classes, 16, 1152, 27, 16, hidden=4304, **options)


@MODELS.register(params=1_164_705_256, **_facts(1536, 16, 256))
@takes(_options)
def siglip_g16(num_classes, **options):
    """The "giant-opt" tower of SigLIP 2."""
    return _vit(num_classes, 16, 1536, 40, 16, **options)
