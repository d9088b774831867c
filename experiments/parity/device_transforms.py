"""Records what torchvision 0.28 and timm 1.0.31 draw and make, for tests/device_transforms.

python -m experiments.parity.device_transforms

Writes tests/device_transforms/fixtures/device_transforms.npz: of every operation, strength and sign
of torchvision's TrivialAugmentWide the checksum of the picture it makes, and boxes that timm's
RandomErasing and torchvision's CutMix drew. Install torch==2.13.0,
torchvision==0.28.0, timm==1.0.31 and Pillow first.
"""

import random
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from experiments.parity import record  # noqa: F401  declares what a CPU build of torch lacks

FILE = Path(__file__).parents[2] / "tests" / "device_transforms" / "fixtures" / \
    "device_transforms.npz"
DRAWS = 4000


def picture() -> np.ndarray:
    """u8[26,31,3]: a slope with noise, within 20 to 230."""
    smooth = np.linspace(60, 190, 26)[:, None, None] + np.linspace(-30, 30, 31)[:, None]
    noise = np.random.default_rng(0).normal(0, 12, (26, 31, 3))
    return np.clip(smooth + noise, 20, 230).astype(np.uint8)


def trivial() -> dict:
    """u32[14,31,2], by operation in torchvision's order, strength and sign (+, -)."""
    from torchvision.transforms import InterpolationMode, autoaugment

    image = Image.fromarray(picture())
    space = autoaugment.TrivialAugmentWide()._augmentation_space(31)
    made = {}
    for name, (strengths, _) in space.items():
        rows = strengths.tolist() if strengths.ndim else [0.0] * 31
        made[name] = [[np.asarray(autoaugment._apply_op(
            image, name, sign * strength, InterpolationMode.NEAREST, None))
            for sign in ((1, -1) if space[name][1] else (1, 1))] for strength in rows]
    sums = [[[zlib.crc32(array.tobytes()) for array in pair] for pair in rows]
            for rows in made.values()]
    return {"trivial: names": np.array(list(made)), "trivial": np.array(sums, np.uint32)}


def erased(**arguments) -> np.ndarray:
    """i16[DRAWS,4] of (top, left, height, width) in 32 x 48 pixels; zeros where none was."""
    from timm.data.random_erasing import RandomErasing

    erase, boxes = RandomErasing(mode="const", device="cpu", **arguments), []
    for _ in range(DRAWS):
        rows, columns = np.nonzero((erase(torch.ones(1, 32, 48)) == 0)[0].numpy())
        boxes.append((rows.min(), columns.min(), np.ptp(rows) + 1, np.ptp(columns) + 1)
                     if len(rows) else (0, 0, 0, 0))
    return np.array(boxes, np.int16)


def boxes(alpha: float) -> np.ndarray:
    """i16[DRAWS,4] of (top, bottom, left, right) in 32 x 48 pixels."""
    from torchvision.transforms import v2

    cutmix, image = v2.CutMix(num_classes=2, alpha=alpha), torch.ones(1, 3, 32, 48)
    drawn = [cutmix.make_params([image])["box"] for _ in range(DRAWS)]
    return np.array([(top, bottom, left, right) for left, top, right, bottom in drawn], np.int16)


def main():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        FILE, **trivial(), **{"erased: p=1": erased(probability=1.0),
                              "erased: p=0.25, area 0.1 to 0.9": erased(
                                  probability=0.25, min_area=0.1, max_area=0.9),
                              "cutmix: alpha=1": boxes(1.0), "cutmix: alpha=0.3": boxes(0.3)})
    print(FILE.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
