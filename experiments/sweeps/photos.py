"""Classes of photo patches, 10 examples each: features of real weights, and training from scratch.

python -m experiments.sweeps.photos [--runs=DIR] [--seeds=0,1,2,3,4]

The classes are 12 photos that scikit-image and scikit-learn ship, the examples patches of 64 x 64
pixels: for training from the left 60% of a photo, drawn by the seed; for testing, the same for all
seeds, from the right 30%. The head of EfficientNet-Lite0 is trained on features of its ImageNet
weights, of the patches enlarged to 224 x 224 pixels (probe), and of 8 augmented views of each; a
ResNet-18 is trained from scratch. Writes photos.json and photos.md.
"""

import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.sweeps.arms import sweep

PHOTOS = {"skimage/data": ("astronaut.png", "brick.png", "chelsea.png", "coffee.png", "coins.png",
                           "grass.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png",
                           "rocket.jpg"),
          "sklearn/datasets/images": ("china.jpg", "flower.jpg")}
SIDE, TRAINED, TESTED = 64, 10, 30  # pixels; patches of each class
LEFT, RIGHT = (0.0, 0.6), (0.7, 1.0)  # shares of the width


def photos() -> dict[str, np.ndarray]:
    """name -> u8[H,W,3], from the files of the wheels."""
    found = {}
    for folder, names in PHOTOS.items():
        package, _, inside = folder.partition("/")
        root = Path(importlib.util.find_spec(package).origin).parent / inside
        for name in names:
            with Image.open(root / name) as image:
                found[name.split(".")[0]] = np.asarray(image.convert("RGB"))
    return found


def patches(image: np.ndarray, part: tuple[float, float], count: int, rng, side: int = SIDE):
    """Random squares that lie within a part of the width."""
    height, width = image.shape[:2]
    first, last = int(np.ceil(part[0] * width)), int(part[1] * width) - side
    for _ in range(count):
        top, left = rng.integers(0, height - side + 1), rng.integers(first, last + 1)
        yield image[top:top + side, left:left + side]


def write(folder: Path, seed: int):
    """folder/train/CLASS/*.png and folder/val/CLASS/*.png."""
    kinds = ("train", LEFT, TRAINED, seed), ("val", RIGHT, TESTED, 1000)
    for split, part, count, number in kinds:
        for place, (name, image) in enumerate(photos().items()):
            there = folder / split / name
            there.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng((number, place))
            for i, patch in enumerate(patches(image, part, count, rng)):
                Image.fromarray(patch).save(there / f"{i:02}.png")


def arms(folder, seed):
    data = folder / f"patches-{seed}"
    if not data.exists():
        write(data, seed)
    once = ["--config.evals.val.every.epochs=1000", "--config.checkpoint.every.epochs=1000",
            "--config.checkpoint.best=None"]
    return {"probe": [f"--config=finetune:data={data},probe=true"],
            "probe_8_views": [f"--config=finetune:data={data},probe=true,views=8"],
            "scratch": [f"--config=finetune:model=resnet18,data={data},size={SIDE}",
                        "--config.total.epochs=60", "--config.batch_size=16", *once]}


if __name__ == "__main__":
    sweep(__file__, arms, {"top1": "top-1 %", "wall_seconds": "seconds"})
