"""The .npz files of Google, for record.py: written under its names, read by timm.

ViT and BiT by timm's own loaders (_load_weights of its vision_transformer.py and resnetv2.py). timm
has none for Mixer: the loader here goes by google-research/vision_transformer, models_mixer.py. The
GELU of both is the tanh form there, which is asked of timm; pre_logits, which timm has dropped, are
put into the head.
"""

import collections
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
from timm.layers import GELUTanh
from torch import nn

from experiments.parity import rule

MODELS = {  # the name of the file -> of timm
    "Ti_16": "vit_tiny_patch16_224", "S_16": "vit_small_patch16_224",
    "S_32": "vit_small_patch32_224", "B_16": "vit_base_patch16_224",
    "B_32": "vit_base_patch32_224", "L_16": "vit_large_patch16_224",
    "Ti_16-pre_logits": "vit_tiny_patch16_224",
    "Mixer-S_32": "mixer_s32_224", "Mixer-S_16": "mixer_s16_224", "Mixer-B_16": "mixer_b16_224",
    "BiT-M-R50x1": "resnetv2_50x1_bit", "BiT-M-R101x1": "resnetv2_101x1_bit",
}


def _layer(found, name, kernel, bias=True):
    found[f"{name}/kernel"] = kernel
    if bias:
        found[f"{name}/bias"] = kernel[-1:]


def _norm(found, name, width, leaves=("scale", "bias")):
    found |= {f"{name}/{leaf}": (width,) for leaf in leaves}


def vit_shapes(width, depth, heads, patch, hidden, tokens, representation) -> dict:
    found = {"cls": (1, 1, width), "Transformer/posembed_input/pos_embedding": (1, tokens, width)}
    _layer(found, "embedding", (patch, patch, 3, width))
    for i in range(depth):
        block = f"Transformer/encoderblock_{i}"
        _norm(found, f"{block}/LayerNorm_0", width)
        _norm(found, f"{block}/LayerNorm_2", width)
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            found[f"{attention}/{part}/kernel"] = (width, heads, width // heads)
            found[f"{attention}/{part}/bias"] = (heads, width // heads)
        _layer(found, f"{attention}/out", (heads, width // heads, width))
        _layer(found, f"{block}/MlpBlock_3/Dense_0", (width, hidden))
        _layer(found, f"{block}/MlpBlock_3/Dense_1", (hidden, width))
    _norm(found, "Transformer/encoder_norm", width)
    if representation:
        _layer(found, "pre_logits", (width, width))
    _layer(found, "head", (width, 1000))
    return found


def mixer_shapes(width, depth, patch, tokens, tokens_hidden, channels_hidden) -> dict:
    found = {}
    _layer(found, "stem", (patch, patch, 3, width))
    for i in range(depth):
        block = f"MixerBlock_{i}"
        _norm(found, f"{block}/LayerNorm_0", width)
        _norm(found, f"{block}/LayerNorm_1", width)
        for kind, outer, hidden in (("token", tokens, tokens_hidden),
                                    ("channel", width, channels_hidden)):
            _layer(found, f"{block}/{kind}_mixing/Dense_0", (outer, hidden))
            _layer(found, f"{block}/{kind}_mixing/Dense_1", (hidden, outer))
    _norm(found, "pre_head_layer_norm", width)
    _layer(found, "head", (width, 1000))
    return found


def bit_shapes(blocks, factor) -> dict:
    def conv(name, *kernel):
        found[f"{name}/standardized_conv2d/kernel"] = kernel

    found, width, inputs = {}, 64 * factor, 64 * factor
    conv("resnet/root_block", 7, 7, 3, width)
    for i, count in enumerate(blocks):
        inner = width * 2**i
        for j in range(count):
            unit = f"resnet/block{i + 1}/unit{j + 1:02d}"
            for letter, side, before in (("a", 1, inputs), ("b", 3, inner), ("c", 1, inner)):
                conv(f"{unit}/{letter}", side, side, before, 4 * inner if letter == "c" else inner)
                _norm(found, f"{unit}/{letter}/group_norm", before, ("gamma", "beta"))
            if not j:
                conv(f"{unit}/a/proj", 1, 1, inputs, 4 * inner)
            inputs = 4 * inner
    _norm(found, "resnet/group_norm", inputs, ("gamma", "beta"))
    _layer(found, "resnet/head/conv2d", (1, 1, inputs, 1000))
    return found


def load_mixer(module, path: Path):
    with np.load(path) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}

    def put(layer, name):
        kernel = arrays.get(f"{name}/kernel")
        if kernel is None:
            layer.weight.copy_(arrays[f"{name}/scale"])
        else:
            layer.weight.copy_(kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T)
        layer.bias.copy_(arrays[f"{name}/bias"])

    put(module.stem.proj, "stem")
    for i, block in enumerate(module.blocks):
        put(block.norm1, f"MixerBlock_{i}/LayerNorm_0")
        put(block.norm2, f"MixerBlock_{i}/LayerNorm_1")
        for mlp, kind in ((block.mlp_tokens, "token"), (block.mlp_channels, "channel")):
            put(mlp.fc1, f"MixerBlock_{i}/{kind}_mixing/Dense_0")
            put(mlp.fc2, f"MixerBlock_{i}/{kind}_mixing/Dense_1")
    put(module.norm, "pre_head_layer_norm")
    put(module.head, "head")


def _shapes(module, representation: bool) -> dict:
    """What Google's file of a timm module holds."""
    if hasattr(module, "stages"):
        blocks = [len(stage.blocks) for stage in module.stages]
        return bit_shapes(blocks, module.stem.conv.out_channels // 64)
    block, width = module.blocks[0], module.norm.weight.shape[0]
    if hasattr(module, "stem"):
        fc1 = block.mlp_tokens.fc1
        return mixer_shapes(width, len(module.blocks), module.stem.proj.kernel_size[0],
                            fc1.in_features, fc1.out_features, block.mlp_channels.fc1.out_features)
    return vit_shapes(width, len(module.blocks), block.attn.num_heads,
                      module.patch_embed.proj.kernel_size[0], block.mlp.fc1.out_features,
                      module.pos_embed.shape[1], representation)


def build(name: str, options: dict):
    """(module, native image size, shapes by name)."""
    bit, representation = name.startswith("BiT"), name.endswith("pre_logits")
    tanh = {} if bit else {"act_layer": GELUTanh}
    module = timm.create_model(MODELS[name], pretrained=False, num_classes=1000, **tanh, **options)
    module.requires_grad_(False)
    shapes = _shapes(module, representation)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.npz"
        np.savez(path, **{key: rule.tensor(key, shape) for key, shape in shapes.items()})
        if name.startswith("Mixer"):
            load_mixer(module, path)
        else:
            module.load_pretrained(str(path))
    if representation:
        width = module.norm.weight.shape[0]
        dense = nn.Linear(width, width).requires_grad_(False)
        dense.weight.copy_(torch.from_numpy(rule.tensor("pre_logits/kernel", (width, width)).T))
        dense.bias.copy_(torch.from_numpy(rule.tensor("pre_logits/bias", (width,))))
        module.head = nn.Sequential(collections.OrderedDict(
            pre_logits=dense, tanh=nn.Tanh(), head=module.head))
    return module, module.default_cfg["input_size"][-1], shapes
