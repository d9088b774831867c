"""What does the TPU compiler make of our training steps, compared with published JAX steps?

python -m experiments.bench.compiled [CASE ...]      needs the extra "tpu", and no TPU

Each case is a step compiled for 256 images per chip of a v5e, in bf16 with f32 parameters, fed as
the published steps are and without augmentation. The published ones are the ImageNet example of
flax (train.py, BatchNorm over what a chip holds) and big_vision's train.py with
configs/vit_s16_i1k.py, in bf16 and without mixup, compiled in the same way with the same libtpu.
The first versions of the others are those of this codebase before their layers were measured.
"""

import importlib.metadata
import sys

from experiments.bench import record
from imgcls_jax import config
from imgcls_jax.assembly import build, measured
from imgcls_jax.bench import compiled, topology

LIBTPU = "0.0.50.1"  # the others' figures are of it: another one's may differ by a percent
RESNET = dict(config="imagenet/resnet:resnet50", images="bfloat16",
              overrides="model.norm_group=256")
VIT = dict(config="imagenet/vit:vit_s16", images="float32", onehot=True,
           overrides="device_transforms=()")
VIT_B = {**VIT, "overrides": "device_transforms=() model.name=vit_b16 model.pool=gap "
         "model.positions=sincos2d model.representation=True model.gelu=tanh "
         "model.remat=keys_values"}
WIRE = {**RESNET, "topology": "v5e:4x4",
        "overrides": "model.norm_group=256 step.reduce=bfloat16"}
CASES = {"ResNet-50": RESNET, "ViT-S/16": VIT, "ViT-B/16": VIT_B, "ResNet-50, 16 chips": WIRE,
         "EfficientNet-B0": dict(model="efficientnet_b0", images="bfloat16"),
         "ConvNeXt-T": dict(model="convnext_tiny", images="bfloat16"),
         "DenseNet-121": dict(model="densenet121", images="bfloat16")}
# cycles in millions, MB per image, GiB at the peak, ms by traffic alone, GFLOP per image
OTHERS = {"ResNet-50": ("flax", 228.9, 318.2, 8.82, 115.5, 24.10),
          "ResNet-50, 16 chips": ("flax", 228.1, 323.6, 8.80, 117.4, 24.10),
          "ViT-S/16": ("big_vision", 282.3, 403.9, 7.06, 139.6, 27.79),
          "ViT-B/16": ("big_vision", 668.7, 810.4, 14.15, 326.0, 106.47),
          "EfficientNet-B0": ("first version", 169.2, 182.95, 3.28, None, None),
          "ConvNeXt-T": ("first version", 399.2, 320.4, 9.68, None, None),
          "DenseNet-121": ("first version", 414.0, 678.1, 9.79, None, None)}


def row(case: str) -> dict:
    """A row of the record: figures, and each as a share of what it is compared with."""
    choice = {"topology": "v5e:1x1", "onehot": False, "overrides": "", **CASES[case]}
    devices = topology.devices(choice["topology"])
    if "model" in choice:
        chosen = measured.plain(choice["model"], 256, 224, "bf16")
    else:
        words = (word.split("=", 1) for word in choice["overrides"].split())
        chosen = config.load(choice["config"], words).config
    chosen = measured.for_slice(chosen, len(devices), 256)
    facts = compiled.measure(build(chosen, devices=devices), images=choice["images"],
                             onehot=choice["onehot"])
    ours = {"M cycles": facts["cycles"] / 1e6, "MB/image": facts["bytes_per_image"] / 1e6,
            "peak GiB": facts["peak_bytes"] / 2**30,
            "ms by traffic": facts["optimal_seconds"] * 1e3,
            "GFLOP/image": facts["flops_per_image"] / 1e9}
    beside, *theirs = OTHERS[case]
    shares = {f"{name}, share": value / other
              for (name, value), other in zip(ours.items(), theirs, strict=True) if other}
    wire = facts["collectives"]
    return {"case": case, **ours, "beside": beside, **shares,
            "images/s": facts["images_per_second_per_device"],
            "collectives": sum(row["count"] for row in wire.values()),
            "MB on the wire": sum(row["bytes"] for row in wire.values()) / 1e6,
            "costliest": facts["costliest"], "unpriced": facts["unpriced"],
            "custom calls": facts["custom_calls"]}


def main(cases):
    if importlib.metadata.version("libtpu") != LIBTPU:
        sys.exit(f"the published steps were compiled by libtpu {LIBTPU}: pip install "
                 f"libtpu=={LIBTPU}, with the jax that takes it (Python 3.12 or later)")
    for case in cases or CASES:
        found = row(case)
        print({key: value for key, value in found.items() if not isinstance(value, dict | list)},
              flush=True)
        record.save("compiled", "Training steps compiled for TPU v5e, 256 images per chip", [found])


if __name__ == "__main__":
    main(sys.argv[1:])
