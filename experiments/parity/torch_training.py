"""The same training here and in torch, by their top-1 over seeds: configs/shapes.py, ten classes.

python -m experiments.parity.torch_training --torch=PYTHON [--seeds=0,1,2,3,4]

PYTHON is one that has torch. Both sides have the architecture, the distributions of initial weights
and augmentations, SGD, schedule, batch size and BatchNorm of the config, and train on the same
images; their random numbers differ. Every run is a process of its own on one core, and runs that
torch_training.json holds already are left out; torch_training.md has the table.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OUT = Path(__file__).with_suffix(".json")
SPEC, OVERRIDES = "shapes:pretrain", ()


# ---- torch: run by another Python, without a line of ours ----------------------------------------


def network(width: int, classes: int):
    """torchvision's ResNet-18 (resnet.py), `width` in place of 64, and a bias of zeros."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inputs, outputs, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.shortcut = nn.Sequential()
            if inputs != outputs:
                self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                                              nn.BatchNorm2d(outputs))

        def forward(self, x):
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(y + self.shortcut(x))

    layers = [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
              nn.MaxPool2d(3, 2, 1)]
    inputs = width
    for stage in range(4):
        for stride in (2 if stage else 1, 1):
            layers.append(Block(inputs, width * 2**stage, stride))
            inputs = width * 2**stage
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(inputs, classes))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    nn.init.uniform_(model[-1].weight, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs))
    nn.init.zeros_(model[-1].bias)
    return model


def train_torch(arrays: str, recipe: dict, seed: int) -> dict:
    """Top-1 on the validation split after the last step."""
    import numpy as np
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data = np.load(arrays)
    train, held_out = (torch.from_numpy(data[f"{split}_image"]).permute(0, 3, 1, 2)
                       for split in ("train", "validation"))
    labels, expected = (torch.from_numpy(data[f"{split}_label"]).long()
                        for split in ("train", "validation"))
    model = network(recipe["width"], recipe["classes"])
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.SGD([{"params": kernels, "weight_decay": recipe["decay"]},
                                 {"params": others, "weight_decay": 0.0}], lr=0.0,
                                momentum=recipe["momentum"], nesterov=recipe["nesterov"])
    began, size, steps = time.perf_counter(), recipe["batch_size"], recipe["steps"]
    epochs = -(-steps * size // len(train))  # one after the other; a batch may reach into the next
    order = torch.cat([torch.randperm(len(train)) for _ in range(epochs)])
    for step in range(steps):
        chosen = order[step * size:(step + 1) * size]
        for group in optimizer.param_groups:
            group["lr"] = rate(step, recipe)
        loss = torch.nn.functional.cross_entropy(
            model(normalised(augmented(train[chosen], recipe["padding"]), recipe)), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        found = torch.cat([model(normalised(part, recipe)).argmax(1)
                           for part in held_out.split(250)])
    return {"top1": (found == expected).double().mean().item(),
            "parameters": sum(p.numel() for p in model.parameters()),
            "seconds": round(time.perf_counter() - began, 1), "torch": torch.__version__}


def rate(step: int, recipe: dict) -> float:
    """A straight line up from 0, then half a cosine down to 0."""
    warmup, steps = recipe["warmup"], recipe["steps"]
    if step < warmup:
        return recipe["base"] * step / warmup
    return recipe["base"] * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def augmented(images, padding: int):
    """u8[B,C,H,W], padded by zeros, cropped back and mirrored, each image on its own."""
    import torch

    height, width = images.shape[2:]
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    corners = torch.randint(0, 2 * padding + 1, (len(images), 2))
    found = torch.stack([image[:, y:y + height, x:x + width]
                         for image, (y, x) in zip(padded, corners.tolist(), strict=True)])
    mirrored = torch.rand(len(images)) < 0.5
    found[mirrored] = found[mirrored].flip(-1)
    return found


def normalised(images, recipe: dict):
    import torch

    mean, std = (torch.tensor(recipe[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return (images.float() / 255 - mean) / std


# ---- ours ----------------------------------------------------------------------------------------


def prepared(folder: str) -> tuple[str, dict]:
    """(file of the arrays, recipe) of the config, for torch."""
    import numpy as np

    from imgcls_jax import config, datasets, durations
    from imgcls_jax.assembly import inputs
    from imgcls_jax.data.decoding.tensorflow import tensorflow

    tensorflow()  # before a dataset imports it without our settings
    c = config.load(SPEC, OVERRIDES).config
    source = inputs.source(c["data"])
    arrays = {}
    for split in source.sizes:
        lookup = datasets.split(source, split)
        rows = lookup.read(np.arange(lookup.size))
        arrays |= {f"{split}_{key}": rows[key].numpy() for key in ("image", "label")}
    path = f"{folder}/arrays.npz"
    np.savez(path, **arrays)
    given = dict(examples=source.sizes["train"], batch_size=c["batch_size"])
    return path, {
        "width": c["model"]["width"], "classes": len(source.classes),
        "batch_size": c["batch_size"], "steps": durations.steps(c["total"], **given, where="total"),
        "warmup": durations.steps(c["schedule"]["warmup"], **given, where="warmup"),
        "base": c["schedule"]["base"], "momentum": c["optimizer"]["momentum"],
        "nesterov": c["optimizer"]["nesterov"], "decay": c["weight_decay"]["value"],
        "padding": c["transforms"][0]["padding"], "mean": c["data"]["mean"],
        "std": c["data"]["std"]}


def train_ours(folder: str, seed: int) -> dict:
    work, began = f"{folder}/{seed}", time.perf_counter()
    subprocess.run([*one_core(), sys.executable, "-m", "imgcls_jax", "train", f"--config={SPEC}",
                    f"--workdir={work}", f"--config.seed={seed}", "--quiet",
                    *(f"--config.{key}={value}" for key, value in OVERRIDES)], check=True)
    record = json.loads(Path(f"{work}/record.json").read_text())
    return {"top1": record["result"]["eval"]["val"]["top1"],
            "seconds": round(time.perf_counter() - began, 1), **record["versions"]}


def one_core() -> list[str]:
    core = min(os.sched_getaffinity(0))
    return ["taskset", "-c", str(core)]


def table(rows: list[dict]) -> tuple[dict, str]:
    summary = {}
    for side in ("torch", "ours"):
        values = [100 * row["top1"] for row in rows if row["side"] == side]
        if values:
            summary[side] = {"mean": statistics.mean(values), "runs": len(values),
                             "std": statistics.stdev(values) if len(values) > 1 else None}
    lines = ["# The same training here and in torch", "",
             f"Written by torch_training.py: {SPEC}, top-1 on the validation split in percent.", "",
             "| side | seeds | mean | standard deviation |", "|---|---:|---:|---:|"]
    for side, found in summary.items():
        spread = "" if found["std"] is None else f"{found['std']:.2f}"
        lines.append(f"| {side} | {found['runs']} | {found['mean']:.2f} | {spread} |")
    return summary, "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--torch", required=True)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    arguments = parser.parse_args()
    rows = json.loads(OUT.read_text())["runs"] if OUT.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        arrays, recipe = prepared(folder)
        for seed in map(int, arguments.seeds.split(",")):
            for side in ("ours", "torch"):
                if any((row["side"], row["seed"]) == (side, seed) for row in rows):
                    continue
                if side == "ours":
                    found = train_ours(folder, seed)
                else:
                    found = json.loads(subprocess.run(
                        [*one_core(), arguments.torch, __file__, "train", arrays,
                         json.dumps(recipe), str(seed)], check=True, capture_output=True).stdout)
                rows.append({"side": side, "seed": seed, **found})
                summary, text = table(rows)
                OUT.write_text(json.dumps({"recipe": recipe, "summary": summary, "runs": rows},
                                          indent=1) + "\n")
                OUT.with_suffix(".md").write_text(text)
                print(rows[-1], flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        print(json.dumps(train_torch(sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4]))))
    else:
        main()
