"""Models of Hugging Face transformers, for record.py: made of a configuration, nothing downloaded.

The tensors are drawn under the names that `save_pretrained` writes, which are those of the hub and
not of the modules, and come back through `from_pretrained`.
"""

import tempfile
from pathlib import Path

import transformers as tf
from safetensors.numpy import load_file, save_file

from experiments.parity import rule


def _vit(width, heads, depth=12, patch=16, hidden=None):
    return dict(hidden_size=width, num_attention_heads=heads, num_hidden_layers=depth,
                patch_size=patch, intermediate_size=hidden or 4 * width)


def _encoder(width, heads, patch, **options):
    return dict(hidden_size=width, num_attention_heads=heads, num_hidden_layers=12,
                patch_size=patch, image_size=224, **options)


def _resnet(depths, bottleneck):
    return dict(depths=depths, layer_type="bottleneck" if bottleneck else "basic",
                hidden_sizes=[(256 if bottleneck else 64) * 2**i for i in range(4)])


def _convnext(depths, width):
    return dict(depths=depths, hidden_sizes=[width * 2**i for i in range(4)])


def _regnet(depths, widths, group_width, kind):
    return dict(depths=depths, hidden_sizes=widths, groups_width=group_width, layer_type=kind)


VIT = tf.ViTForImageClassification, tf.ViTConfig
TEACHER = tf.DeiTForImageClassificationWithTeacher, tf.DeiTConfig
CLASS = tf.DeiTForImageClassification, tf.DeiTConfig
RESNET = tf.ResNetForImageClassification, tf.ResNetConfig
CONVNEXT = tf.ConvNextForImageClassification, tf.ConvNextConfig
DINOV2 = tf.Dinov2ForImageClassification, tf.Dinov2Config
REGISTERS = tf.Dinov2WithRegistersForImageClassification, tf.Dinov2WithRegistersConfig
DINOV3 = tf.DINOv3ViTModel, tf.DINOv3ViTConfig  # a pooled embedding, without a head
SIGLIP = tf.SiglipVisionModel, tf.SiglipVisionConfig  # as well
CONVNEXT2 = tf.ConvNextV2ForImageClassification, tf.ConvNextV2Config
REGNET = tf.RegNetForImageClassification, tf.RegNetConfig
MODELS = {
    "vit-tiny-patch16-224": (VIT, _vit(192, 3)),
    "vit-small-patch16-224": (VIT, _vit(384, 6)),
    "vit-base-patch16-224": (VIT, _vit(768, 12)),
    "vit-base-patch32-224": (VIT, _vit(768, 12, patch=32)),
    "vit-large-patch16-224": (VIT, _vit(1024, 16, 24)),
    "deit-tiny-distilled-patch16-224": (TEACHER, _vit(192, 3)),
    "deit-small-distilled-patch16-224": (TEACHER, _vit(384, 6)),
    "deit-base-distilled-patch16-224": (TEACHER, _vit(768, 12)),
    "deit-tiny-class-patch16-224": (CLASS, _vit(192, 3)),
    "resnet-18": (RESNET, _resnet([2, 2, 2, 2], False)),
    "resnet-34": (RESNET, _resnet([3, 4, 6, 3], False)),
    "resnet-50": (RESNET, _resnet([3, 4, 6, 3], True)),
    "resnet-101": (RESNET, _resnet([3, 4, 23, 3], True)),
    "resnet-152": (RESNET, _resnet([3, 8, 36, 3], True)),
    "convnext-tiny-224": (CONVNEXT, _convnext([3, 3, 9, 3], 96)),
    "convnext-small-224": (CONVNEXT, _convnext([3, 3, 27, 3], 96)),
    "convnext-base-224": (CONVNEXT, _convnext([3, 3, 27, 3], 128)),
    "convnext-large-224": (CONVNEXT, _convnext([3, 3, 27, 3], 192)),
    "dinov2-small": (DINOV2, _encoder(384, 6, 14)),
    "dinov2-with-registers-small": (REGISTERS, _encoder(384, 6, 14)),
    "dinov3-vits16": (DINOV3, _encoder(384, 6, 16, intermediate_size=1536,
                                       num_register_tokens=4)),
    "dinov3-vits16plus": (DINOV3, _encoder(384, 6, 16, intermediate_size=1536, hidden_act="silu",
                                           num_register_tokens=4, use_gated_mlp=True)),
    "siglip-base-patch16-224": (SIGLIP, _encoder(768, 12, 16, intermediate_size=3072)),
    "convnextv2-atto-1k-224": (CONVNEXT2, _convnext([2, 2, 6, 2], 40)),
    "regnet-x-008": (REGNET, _regnet([1, 3, 7, 5], [64, 128, 288, 672], 16, "x")),
    "regnet-y-004": (REGNET, _regnet([1, 3, 6, 6], [48, 104, 208, 440], 8, "y")),
}


def save(name: str, options: dict, folder: Path) -> dict[str, tuple[int, ...]]:
    """Writes a folder that `from_pretrained` reads; shapes of the tensors in its file by name."""
    (kind, config), arguments = MODELS[name]
    kind(config(num_labels=1000, **arguments, **options)).save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors = {key: value if "running" in key or value.ndim == 0 else
               rule.tensor(key, value.shape) for key, value in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    return {key: value.shape for key, value in tensors.items()}


def build(name: str, options: dict):
    """(module that gives logits, or a pooled embedding, native image size, shapes by name)."""
    with tempfile.TemporaryDirectory() as folder:
        shapes = save(name, options, Path(folder))
        module, told = MODELS[name][0][0].from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    module.register_forward_hook(
        lambda _, __, out: out.logits if hasattr(out, "logits") else out.pooler_output)
    return module, getattr(module.config, "image_size", 224), shapes
