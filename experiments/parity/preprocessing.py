"""Records what published preprocessings make of the files of pictures.py, each run by its own
library.

python -m experiments.parity.preprocessing opencv
python -m experiments.parity.preprocessing tensorflow --tensors=/tmp/google.npy
python -m experiments.parity.preprocessing torch --tensors=/tmp/google.npy

Each writes tests/transforms/preprocessing/<part>.npz. `opencv`: cv2.resize; install
opencv-python-headless==5.0.0.93. `tensorflow`: Google's ViT and Keras; tensorflow==2.21.0 and
keras==3.15.1. `torch`: the evaluation transforms of every weight of torchvision and of those of
timm that the catalogue names, and the logits of a small model per publisher, the last one on the
tensors that `tensorflow` left; torch==2.13.0, torchvision==0.28.0 and timm==1.0.31.

Of an input tensor are kept some 200 pixels spread over it and the means of 16 parts, as levels of
255, and of the first file some pixels as the model receives them.
"""

import argparse
import io
import json
import math
import re
import tempfile
from pathlib import Path

import numpy as np

from experiments.parity import pictures

FINE = 256  # steps of a level, where a reference does not round
VALUES = 16  # normalised pixels kept of the first file
KEPT = 16  # every sixteenth logit


class Record:
    """Presets with what they made of the files; `save` writes them."""

    def __init__(self):
        self.presets, self.arrays = [], {}

    def add(self, name: str, levels, normalised: np.ndarray, **facts):
        """levels: one f[H,W,3] in 0 to 255 per file. normalised: the first as the model gets it.

        facts: `weights` (arguments of types.Weights) or `transforms` (as a config names them) that
        mean the same; mean and std; rows of the catalogue that are evaluated so.
        """
        levels = list(levels)
        whole = max(np.abs(one - np.rint(one)).max() for one in levels) < 1e-2
        unit, kind = (1, np.uint8) if whole else (FINE, np.uint16)
        self.arrays[f"{name}: points"] = np.stack(
            [np.rint(pictures.points(one) * unit) for one in levels]).astype(kind)
        self.arrays[f"{name}: blocks"] = np.stack(
            [np.rint(pictures.blocks(one) * FINE) for one in levels]).astype(np.uint16)
        self.arrays[f"{name}: values"] = pictures.points(normalised)[:VALUES].astype(np.float32)
        self.presets.append({"name": name, "unit": unit, **facts})
        print(f"{name}: {'u8' if whole else 'fractions'}, for {len(facts.get('rows', []))} rows",
              flush=True)

    def save(self, part: str):
        path = pictures.FOLDER / f"{part}.npz"
        np.savez_compressed(path, presets=json.dumps(self.presets), **self.arrays)
        print(f"{path}: {path.stat().st_size:,} bytes")


def opened():
    from PIL import Image

    return [Image.open(io.BytesIO(data)).convert("RGB") for data in pictures.files().values()]


def channels_last(tensor) -> np.ndarray:
    return tensor.permute(1, 2, 0).numpy().astype(np.float64)


def record_torch(tensors: Path):
    import experiments.parity.record  # noqa: F401  declares what a CPU build of torch lacks

    images, record = opened(), Record()
    torchvision_presets(record, images)
    timm_presets(record, images)
    logits(record, images, tensors)
    record.save("torch")


def torchvision_presets(record: Record, images: list):
    """Every distinct preset of its weights, and its transforms of version 2 for one of them."""
    import torch
    from torchvision import models
    from torchvision.transforms import v2

    from experiments.parity import catalogue

    found: dict = {}
    for name in models.list_models(module=models):
        for entry in models.get_model_weights(name):
            way = entry.transforms()
            key = (way.crop_size[0], way.resize_size[0], way.interpolation.value, way.antialias,
                   tuple(way.mean), tuple(way.std),
                   name if name in catalogue.TRANSFORMED else "")
            known = re.fullmatch(catalogue.FAMILIES, name)
            rows = found.setdefault(key, (way, []))[1]
            rows += [f"{catalogue.ours(name)}/{entry.name.lower()}"] if known else []

    def inside(name):
        """What the model itself does to its input first."""
        if not name:
            return lambda x: x
        # Neither has parameters to do it with: no model is built.
        kind = {"googlenet": models.GoogLeNet, "inception_v3": models.Inception3}[name]
        bare = type("Bare", (), {"transform_input": True})()
        return lambda x: kind._transform_input(bare, x[None])[0]

    def add(name, way, facts, mean, std, of_model, rows=(), given=images):
        outs = [way(image) for image in given]
        record.add(name, [(channels_last(out) * std + mean) * 255 for out in outs],
                   channels_last(of_model(outs[0])), weights=facts, rows=list(rows))

    for (crop, resize, how, antialias, mean, std, model), (way, rows) in sorted(
            found.items(), key=lambda item: item[0]):
        facts = dict(layout="torchvision", image_size=crop, resize=resize, interpolation=how,
                     mean=catalogue.TRANSFORMED.get(model, mean),
                     std=catalogue.TRANSFORMED.get(model, std))
        assert antialias is True
        add(f"torchvision {model or crop} {resize} {how} {mean[0]:g}", way, facts, mean, std,
            inside(model), rows)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    facts = dict(layout="torchvision", image_size=224, resize=232, interpolation="bilinear",
                 mean=mean, std=std)
    shrink = [v2.Resize(232, antialias=True), v2.CenterCrop(224)]
    normalise = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    add("torchvision.transforms.v2 of Pillow images",
        v2.Compose([*shrink, v2.PILToTensor(), *normalise]), facts, mean, std, inside(""))
    add("torchvision.transforms.v2 of tensors", v2.Compose([*shrink, *normalise]), facts, mean, std,
        inside(""), given=[v2.functional.pil_to_tensor(image) for image in images])


def timm_presets(record: Record, images: list):
    """Those of the weights that the catalogue names, at the size that it names."""
    import timm

    from experiments.parity import catalogue

    found: dict = {}
    for name, (model, tag, size, _) in catalogue.TIMM.items():
        cfg = timm.models.get_pretrained_cfg(name)
        data = timm.data.resolve_data_config(pretrained_cfg=cfg.to_dict(),
                                             use_test_size=size != cfg.input_size[-1])
        assert data["input_size"][-1] == size, name
        key = (size, data["crop_pct"], data["interpolation"], data["crop_mode"],
               tuple(data["mean"]), tuple(data["std"]))
        found.setdefault(key, (data, []))[1].append(f"{model}/{tag}")
    for (size, crop, how, mode, mean, std), (data, rows) in sorted(found.items(),
                                                                  key=lambda item: item[0]):
        way = timm.data.create_transform(**data, is_training=False)
        outs = [channels_last(way(image)) for image in images]
        record.add(f"timm {size} {crop:g} {how} {mode} {mean[0]:g}",
                   [(out * std + mean) * 255 for out in outs], outs[0], rows=rows,
                   weights=dict(layout="timm", image_size=size, resize=math.floor(size / crop),
                                interpolation=how, crop_mode=mode, mean=mean, std=std))


def logits(record: Record, images: list, tensors: Path):
    """Of one small model per publisher, on all files."""
    import timm
    import torch
    from torchvision import models

    deit = timm.create_model("deit_tiny_patch16_224")
    vit = timm.create_model("vit_tiny_patch16_224")
    resnet = models.resnet18()
    way = timm.data.create_transform(**timm.data.resolve_data_config(
        pretrained_cfg=deit.pretrained_cfg), is_training=False)
    preset = models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    given = {"torchvision": (resnet, torch.stack([preset(image) for image in images])),
             "timm": (deit, torch.stack([way(image) for image in images])),
             "google": (vit, torch.from_numpy(np.load(tensors)).permute(0, 3, 1, 2).contiguous())}
    for publisher, (module, x) in given.items():
        def run(bias, module=module, x=x, publisher=publisher):
            state = {name: torch.from_numpy(value)
                     for name, value in pictures.weights(publisher, bias).items()}
            module.load_state_dict(state)
            with torch.no_grad():
                return module.eval()(x).numpy()

        centered = -run(np.zeros(1000, np.float32)).mean(0)
        out = run(centered)
        top = np.sort(out, 1)[:, -2:]
        print(f"{publisher}: logits of sd {out.std(0).mean():.3g} across files, probabilities up "
              f"to {(np.exp(out) / np.exp(out).sum(1, keepdims=True)).max(1).round(3)}, answers "
              f"{out.argmax(1)}, ahead by {np.diff(top)[:, 0].min():.3g} at least")
        record.arrays |= {f"{publisher}: bias": centered, f"{publisher}: top1": out.argmax(1),
                          f"{publisher}: logits": np.c_[out[:, ::KEPT], out.max(1)],
                          f"{publisher}: normaliser": np.log(np.exp(out).sum(1)),
                          f"{publisher}: ahead": np.diff(top)[:, 0]}


def record_opencv():
    import cv2

    kinds = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR,
             "bicubic": cv2.INTER_CUBIC, "area": cv2.INTER_AREA, "lanczos4": cv2.INTER_LANCZOS4}
    record, crop, resize = Record(), 224, 256
    for name, kind in kinds.items():
        outs = []
        for image in opened():
            image = np.asarray(image)
            height, width = image.shape[:2]
            short = min(height, width)
            size = (resize * width // short, resize * height // short)
            image = cv2.resize(image, size, interpolation=kind)
            top, left = (round((side - crop) / 2) for side in image.shape[:2])
            outs.append(image[top:top + crop, left:left + crop].astype(np.float64))
        record.add(f"opencv {name}", outs, outs[0] / 255, mean=(0.0,) * 3, std=(1.0,) * 3,
                   transforms=[dict(name="resize_small", size=resize, interpolation=name,
                                    library="opencv"), dict(name="center_crop", size=crop)])
        record.arrays[f"resizes: {name}"] = np.concatenate(
            [cv2.resize(image, (width, height), interpolation=kind).reshape(-1)[::257]
             for image, height, width in pictures.resizes()])
    record.save("opencv")


def record_tensorflow(tensors: Path):
    import keras
    import tensorflow as tf

    record, half = Record(), (0.5,) * 3
    for size in (224, 384):  # vision_transformer/vit_jax/input_pipeline.py
        outs = []
        for data in pictures.files().values():
            image = tf.io.decode_image(data, channels=3, expand_animations=False)
            image = tf.image.resize(image, (size, size))
            outs.append(((image - 127.5) / 127.5).numpy())
        record.add(f"google {size}", [(out.astype(np.float64) + 1) * 127.5 for out in outs],
                   outs[0], weights=dict(layout="npz", image_size=size, resize=size,
                                         interpolation="bilinear", crop_mode="squash",
                                         mean=half, std=half), rows=[])
        if size == 224:
            np.save(tensors, np.stack(outs))
    for how in ("bilinear", "bicubic", "lanczos3", "area"):
        outs = [tf.image.resize(tf.io.decode_image(data, 3, expand_animations=False), (160, 200),
                                how, antialias=True).numpy() for data in pictures.files().values()]
        outs = [np.clip(out, 0, 255) for out in outs]
        record.add(f"tf.image.resize {how}", outs, outs[0] / 255, mean=(0.0,) * 3, std=(1.0,) * 3,
                   transforms=[dict(name="decode", dct="fast"),
                               dict(name="resize", size=(160, 200), interpolation=how)])
    keras_presets(record, keras)
    record.save("tensorflow")


def keras_presets(record: Record, keras):
    """Its two ways from a file to an array, and its three modes of normalisation."""
    modes = {"caffe": (keras.applications.vgg16, (123.68, 116.779, 103.939), (1.0,) * 3),
             "tf": (keras.applications.mobilenet_v2, (127.5,) * 3, (127.5,) * 3),
             "torch": (keras.applications.densenet,
                       [255 * m for m in (0.485, 0.456, 0.406)],
                       [255 * s for s in (0.229, 0.224, 0.225)])}
    for (mode, (module, mean, std)), how in zip(modes.items(), ("nearest", "bilinear", "bicubic"),
                                                strict=True):
        outs = [keras.utils.img_to_array(keras.utils.load_img(
            io.BytesIO(data), target_size=(224, 224), interpolation=how))
            for data in pictures.files().values()]
        first = module.preprocess_input(outs[0].copy())
        # The mode "caffe" gives blue first; we keep red first, and turn the first kernel.
        first = first[..., ::-1] if mode == "caffe" else first
        record.add(f"keras {mode} load_img {how}", outs, first, rows=[], weights=dict(
            layout="keras", image_size=224, resize=224, interpolation=how, crop_mode="squash",
            mean=[m / 255 for m in mean], std=[s / 255 for s in std]))
    with tempfile.TemporaryDirectory() as folder:
        for name, data in pictures.files().items():
            (Path(folder) / name).write_bytes(data)
        dataset = keras.utils.image_dataset_from_directory(
            folder, labels=None, shuffle=False, image_size=(224, 224), batch_size=None)
        outs = [image.numpy() if hasattr(image, "numpy") else np.asarray(image)
                for image in dataset]
    record.add("keras image_dataset_from_directory", outs, outs[0] / 255, mean=(0.0,) * 3,
               std=(1.0,) * 3, transforms=[dict(name="decode", dct="fast"),
                                           dict(name="resize", size=224, antialias=False)])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["opencv", "tensorflow", "torch"])
    parser.add_argument("--tensors", type=Path, help="of Google's preset, from one part to another")
    arguments = parser.parse_args()
    if arguments.part == "opencv":
        return record_opencv()
    if not arguments.tensors:
        parser.error(f"{arguments.part} needs --tensors")
    record = {"tensorflow": record_tensorflow, "torch": record_torch}[arguments.part]
    record(arguments.tensors)


if __name__ == "__main__":
    main()
