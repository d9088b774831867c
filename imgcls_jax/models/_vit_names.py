"""How the publishers of Vision Transformers name their tensors."""

import dataclasses

from imgcls_jax.types import Layout

TORCHVISION = Layout("torch", (  # torchvision/models/vision_transformer.py
    (r"token", r"class_token"),
    (r"positions", r"encoder.pos_embedding"),
    (r"patches", r"conv_proj"),
    (r"block(\d+)/norm(\d)", r"encoder.layers.encoder_layer_\1.ln_\2"),
    (r"block(\d+)/attention/qkv/kernel",
     r"encoder.layers.encoder_layer_\1.self_attention.in_proj_weight"),
    (r"block(\d+)/attention/qkv/bias",
     r"encoder.layers.encoder_layer_\1.self_attention.in_proj_bias"),
    (r"block(\d+)/attention/out", r"encoder.layers.encoder_layer_\1.self_attention.out_proj"),
    (r"block(\d+)/mlp/hidden", r"encoder.layers.encoder_layer_\1.mlp.0"),
    (r"block(\d+)/mlp/out", r"encoder.layers.encoder_layer_\1.mlp.3"),
    (r"norm", r"encoder.ln"),
    (r"head", r"heads.head")), patches=r"patches/kernel",
    older=((r"(encoder\.layers\.encoder_layer_\d+\.mlp)\.linear_1\.(.*)", r"\1.0.\2"),
           (r"(encoder\.layers\.encoder_layer_\d+\.mlp)\.linear_2\.(.*)", r"\1.3.\2")))
TIMM = Layout("torch", (  # timm/models/vision_transformer.py
    (r"token", r"cls_token"),
    (r"positions", r"pos_embed"),
    (r"patches", r"patch_embed.proj"),
    (r"block(\d+)/norm(\d)", r"blocks.\1.norm\2"),
    (r"block(\d+)/attention/qkv", r"blocks.\1.attn.qkv"),
    (r"block(\d+)/attention/(q|k)\w+_norm", r"blocks.\1.attn.\2_norm"),
    (r"block(\d+)/layer_scale(\d)", r"blocks.\1.ls\2.gamma"),
    (r"registers", r"reg_token"),
    (r"block(\d+)/attention/out", r"blocks.\1.attn.proj"),
    (r"block(\d+)/mlp/hidden", r"blocks.\1.mlp.fc1"),
    (r"block(\d+)/mlp/out", r"blocks.\1.mlp.fc2"),
    (r"norm", r"norm"),
    (r"pool/probe", r"attn_pool.latent"),
    (r"pool/query", r"attn_pool.q"),
    (r"pool/key", r"attn_pool.kv[0/2]"),
    (r"pool/value", r"attn_pool.kv[1/2]"),
    (r"pool/out", r"attn_pool.proj"),
    (r"pool/norm", r"attn_pool.norm"),
    (r"pool/mlp/hidden", r"attn_pool.mlp.fc1"),
    (r"pool/mlp/out", r"attn_pool.mlp.fc2"),
    (r"head", r"head")), patches=r"patches/kernel", tells=(
        (r"attn_pool\.latent", "model", {"pool": "map"}),))


def transformers(prefix: str, *renames: tuple[str, str]) -> Layout:
    """The layout of transformers/models/vit and deit.

    prefix: the name of the kind of model there, which files without a head leave out. renames:
    those that only this kind has; they take precedence. Its layer norms have an epsilon of 1e-12,
    not 1e-6, which makes no visible difference in the logits.
    """
    block = rf"{prefix}.encoder.layer.\1"
    return Layout("torch", (
        *renames,
        (r"token", rf"{prefix}.embeddings.cls_token"),
        (r"positions", rf"{prefix}.embeddings.position_embeddings"),
        (r"patches", rf"{prefix}.embeddings.patch_embeddings.projection"),
        (r"block(\d+)/norm1", rf"{block}.layernorm_before"),
        (r"block(\d+)/norm2", rf"{block}.layernorm_after"),
        (r"block(\d+)/attention/qkv", tuple(rf"{block}.attention.attention.{part}"
                                            for part in ("query", "key", "value"))),
        (r"block(\d+)/attention/out", rf"{block}.attention.output.dense"),
        (r"block(\d+)/mlp/hidden", rf"{block}.intermediate.dense"),
        (r"block(\d+)/mlp/out", rf"{block}.output.dense"),
        (r"norm", rf"{prefix}.layernorm"),
        (r"head", r"classifier")), patches=r"patches/kernel",
        unused=(r"(.*\.)?pooler\..*", r".*\.mask_token"),
        older=((r"(?:embeddings|encoder|layernorm)\..*", rf"{prefix}.\g<0>"),))


def by_head(layout: Layout, heads: int, width: int) -> Layout:
    """An npz layout of a transformer of that width, whose files have an axis for the heads."""
    attention, size = r".*/MultiHeadDotProductAttention_\d", width // heads
    return dataclasses.replace(layout, shapes=(
        (rf"{attention}/(query|key|value)/kernel", (width, heads, size)),
        (rf"{attention}/(query|key|value)/bias", (heads, size)),
        (rf"{attention}/out/kernel", (heads, size, width))))


ATTENTION = r"Transformer/encoderblock_\1/MultiHeadDotProductAttention_1"
# google-research/vision_transformer. Its GELU is the tanh form; its images are in -1 to 1.
NPZ = Layout("npz", (
    (r"token", r"cls"),
    (r"positions", r"Transformer/posembed_input/pos_embedding"),
    (r"patches", r"embedding"),
    (r"block(\d+)/norm1", r"Transformer/encoderblock_\1/LayerNorm_0"),
    (r"block(\d+)/norm2", r"Transformer/encoderblock_\1/LayerNorm_2"),
    (r"block(\d+)/attention/qkv", tuple(f"{ATTENTION}/{part}"
                                        for part in ("query", "key", "value"))),
    (r"block(\d+)/attention/out", f"{ATTENTION}/out"),
    (r"block(\d+)/mlp/hidden", r"Transformer/encoderblock_\1/MlpBlock_3/Dense_0"),
    (r"block(\d+)/mlp/out", r"Transformer/encoderblock_\1/MlpBlock_3/Dense_1"),
    (r"norm", r"Transformer/encoder_norm"),
    (r"representation", r"pre_logits"),
    (r"head", r"head")), patches=r"patches/kernel", tells=(
        (r"Transformer/encoder_norm/scale", "model", {"gelu": "tanh"}),
        (r"Transformer/encoder_norm/scale", "data", {"mean": (0.5,), "std": (0.5,)}),
        (r"pre_logits/kernel", "model", {"representation": True})))


def big_vision(renames: tuple[tuple[str, str], ...], *older: tuple[str, str], **facts) -> Layout:
    """A layout of google-research/big_vision, in whose files the parameters may stand beside the
    state of an optimizer (params/..., or opt/target/... before optax) and a text tower (img/...).

    older: names in earlier files, which may have these prefixes too.
    """
    inside = r"(?:params/|opt/target/)?(?:img/)?"
    return Layout("npz", renames, older=(*((inside + there, here) for there, here in older),
                                         (r"(?:params/|opt/target/)(?:img/)?(.*)", r"\1"),
                                         (r"img/(.*)", r"\1")),
                  unused=(r"(opt|txt)/.*", r"t|b", r"(chrono|extra|step)(/.*)?"), **facts)


LINEN = r"Transformer/encoderblock_\1"
# big_vision/models/vit.py, and, with positions in another place, vit_jax/models_vit.py of
# google-research/vision_transformer. The parameters of scanned blocks are stacked.
BIG_VISION = big_vision((
    (r"token", r"cls"),
    (r"positions", r"pos_embedding"),
    (r"patches", r"embedding"),
    (r"block(\d+)/norm1", rf"{LINEN}/LayerNorm_0"),
    (r"block(\d+)/norm2", rf"{LINEN}/LayerNorm_1"),
    (r"block(\d+)/attention/qkv", tuple(f"{LINEN}/MultiHeadDotProductAttention_0/{part}"
                                        for part in ("query", "key", "value"))),
    (r"block(\d+)/attention/out", rf"{LINEN}/MultiHeadDotProductAttention_0/out"),
    (r"block(\d+)/mlp/hidden", rf"{LINEN}/MlpBlock_0/Dense_0"),
    (r"block(\d+)/mlp/out", rf"{LINEN}/MlpBlock_0/Dense_1"),
    (r"norm", r"Transformer/encoder_norm"),
    (r"pool/probe", r"MAPHead_0/probe"),
    (r"pool/(query|key|value|out)", r"MAPHead_0/MultiHeadDotProductAttention_0/\1"),
    (r"pool/norm", r"MAPHead_0/LayerNorm_0"),
    (r"pool/mlp/hidden", r"MAPHead_0/MlpBlock_0/Dense_0"),
    (r"pool/mlp/out", r"MAPHead_0/MlpBlock_0/Dense_1"),
    (r"representation", r"pre_logits"),
    (r"head", r"head")),
    (r"Transformer/(?:posembed_input/)?pos_embedding", r"pos_embedding"),
    (r"Transformer/encoderblock/(.*)", r"Transformer/encoderblock_{}/\1"),
    patches=r"patches/kernel", tells=(
        (r".*Transformer/encoderblock(_0)?/LayerNorm_1/scale", "model",
         {"gelu": "tanh", "pool": "gap", "positions": "sincos2d"}),
        (r".*Transformer/encoderblock(_0)?/LayerNorm_1/scale", "data",
         {"mean": (0.5,), "std": (0.5,)}),
        (r"(.*/)?pos_embedding", "model", {"positions": "learned"}),
        (r"(.*/)?cls", "model", {"pool": "token"}),
        (r"(.*/)?MAPHead_0/probe", "model", {"pool": "map"}),
        (r"(.*/)?pre_logits/kernel", "model", {"representation": True})))
