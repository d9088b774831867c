"""24 image files, what is kept of the input tensors made of them, and the models they are shown to.

python -m experiments.parity.pictures       draws the files anew; every record must follow

Shared by experiments/parity/preprocessing.py and the tests of what it recorded; numpy only, and
Pillow to draw. The bytes are kept, because encoders differ between versions.
"""

import io
import math
from pathlib import Path

import numpy as np

from experiments.parity import rule

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "transforms" / "preprocessing"
# Publisher -> (recorded parity case, its classifier): a small model each.
MODELS = {"torchvision": ("tv_resnet18", "fc"), "timm": ("timm_deit_tiny_patch16_224", "head"),
          "google": ("timm_vit_tiny_patch16_224", "head")}
SHARPER = 8  # the classifier times this: probabilities as of a model that has learnt something


def points(levels: np.ndarray) -> np.ndarray:
    """[H,W,C] -> [N,C], N about 200: pixels spread over all rows and columns alike."""
    step = max(levels.shape[0] * levels.shape[1] // 200, 1)
    while math.gcd(step, levels.shape[1]) > 1:
        step += 1
    return levels.reshape(-1, levels.shape[-1])[::step]


def blocks(levels: np.ndarray) -> np.ndarray:
    """[H,W,C] -> f64[16,C], the means of its parts."""
    rows = np.array_split(levels.astype(np.float64), 4)
    return np.stack([part.mean((0, 1)) for row in rows for part in np.array_split(row, 4, axis=1)])


def files() -> dict[str, bytes]:
    """The recorded files by name."""
    with np.load(FOLDER / "files.npz") as file:
        return {name: file[name].tobytes() for name in file}


def weights(publisher: str, bias: np.ndarray) -> dict[str, np.ndarray]:
    """Tensors of the publisher's model, its classifier sharpened, and centered by `bias`.

    A model drawn at random gives all pictures nearly one answer; so their differences count.
    """
    case, head = MODELS[publisher]
    with np.load(ROOT / "tests" / "pretrained" / "cases" / f"{case}.npz") as file:
        tensors = rule.state_dict(dict(file))
    return tensors | {f"{head}.weight": tensors[f"{head}.weight"] * np.float32(SHARPER),
                      f"{head}.bias": bias}


def resizes(count: int = 200):
    """(u8[h,w,3], height, width) of random sizes below 100, growing and shrinking."""
    draw = np.random.Generator(np.random.Philox(0)).random  # the same in every version of numpy
    for number in range(count):
        h, w, height, width = (1 + 99 * draw(4)).astype(int).tolist()
        if number % 10 == 0:  # by whole factors, for which OpenCV has code of its own
            h, w = height * (2 + number // 10 % 3), width * 2
        image = np.clip(384 * draw((h, w, 3)) - 64, 0, 255).astype(np.uint8)
        yield image, height, width


def scene(height: int, width: int, seed: int) -> np.ndarray:
    """u8[height,width,3]: rings that grow finer outwards, edges from 0 to 255, some noise."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    side = max(height, width)
    image = np.empty((height, width, 3))
    for channel in range(3):
        cy, cx = (0.3 + 0.13 * channel) * height, (0.7 - 0.17 * ((channel + seed) % 3)) * width
        image[..., channel] = 128 + 110 * np.cos(
            ((y - cy) ** 2 + (x - cx) ** 2) / side * (0.15 + 0.05 * (seed % 4)))
    draw = np.random.Generator(np.random.Philox(seed)).random
    corners, colors = draw((6, 4)), np.rint(draw((6, 3))) * 255
    for (top, left, h, w), color in zip(corners, colors, strict=True):
        top, left = int(top * height), int(left * width)
        image[top:top + int(h * height / 3) + 1, left:left + int(w * width / 3) + 1] = color
    image += np.where((x + 2 * y) % 41 < 1, 90, 0)[..., None]  # thin lines
    return np.clip(image + 12 * draw(image.shape) - 6, 0, 255).astype(np.uint8)


def main():
    from PIL import Image

    found = {}

    def save(name, image, **options):
        out = io.BytesIO()
        image.save(out, "JPEG" if name.endswith("jpg") else "PNG", **options)
        found[f"{len(found):02}_{name}"] = out.getvalue()

    def picture(height, width, seed=0):
        return Image.fromarray(scene(height, width, seed))

    save("photo.jpg", picture(375, 500), quality=75)
    save("upright.jpg", picture(500, 334, 1), quality=80, subsampling=0)
    save("square.jpg", picture(256, 256, 2), quality=90, subsampling=1)
    save("crop_size.jpg", picture(224, 224, 3), quality=85)
    save("odd.jpg", picture(301, 233, 4), quality=70)
    save("small.jpg", picture(64, 97, 5), quality=95)
    save("tiny.jpg", picture(21, 34, 6), quality=95, subsampling=0)
    save("wide.jpg", picture(120, 620, 7), quality=75)
    save("tall.jpg", picture(540, 100, 8), quality=75)
    save("large.jpg", picture(760, 1024, 9), quality=40)
    save("progressive.jpg", picture(333, 500, 10), quality=70, progressive=True)
    save("coarse.jpg", picture(375, 500, 11), quality=5)
    save("gray.jpg", picture(320, 427, 12).convert("L"), quality=80)
    save("cmyk.jpg", picture(150, 200, 13).convert("CMYK"), quality=80)
    exif = Image.Exif()
    exif[0x0112] = 6  # the orientation, which no published recipe looks at
    save("rotated.jpg", picture(200, 300, 14), quality=80, exif=exif)
    save("optimised.jpg", picture(257, 385, 15), quality=85, optimize=True, restart_marker_rows=2)
    save("color.png", picture(90, 110, 16))
    save("palette.png", picture(240, 320, 17).quantize(16, dither=Image.Dither.NONE), optimize=True)
    palette = picture(150, 130, 18).quantize(8, dither=Image.Dither.NONE)
    save("transparent.png", palette, transparency=3)
    alpha = picture(80, 120, 19).convert("RGBA")
    alpha.putalpha(Image.fromarray(scene(80, 120, 20)[..., 0]))
    save("alpha.png", alpha)
    save("gray.png", picture(130, 170, 21).convert("L"))
    save("gray_alpha.png", picture(70, 90, 22).convert("LA"))
    save("two_colors.png", picture(300, 400, 23).convert("1", dither=Image.Dither.NONE))
    save("flat.png", picture(256, 341, 24).quantize(4, dither=Image.Dither.NONE).convert("RGB"))
    assert len(found) == 24
    FOLDER.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(FOLDER / "files.npz", **{name: np.frombuffer(data, np.uint8)
                                                 for name, data in found.items()})


if __name__ == "__main__":
    main()
