"""From a file to the input tensor of a published weight: ours against Pillow's own calls.

torchvision's and timm's evaluation transforms are, on a Pillow image: convert to RGB, resize the
short side, crop the center, divide by 255, subtract the mean, divide by the standard deviation
(torchvision/transforms/_presets.py, timm/data/transforms_factory.py).
"""

import io

import numpy as np
import pytest
from PIL import Image

from imgcls_jax import pipeline
from imgcls_jax.build import normaliser
from imgcls_jax.transforms import TRANSFORMS
from imgcls_jax.types import Lookup

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# (crop, resize, interpolation) as torchvision and timm publish them.
PRESETS = {"torchvision v1": (224, 256, "bilinear"), "torchvision v2": (224, 232, "bilinear"),
           "inception": (299, 342, "bilinear"), "efficientnet_b0": (224, 256, "bicubic"),
           "timm crop .9": (224, 248, "bicubic"), "timm crop 1.0": (224, 224, "bicubic"),
           "deit3 384": (384, 384, "bicubic"), "lanczos": (224, 256, "lanczos3")}
FILTERS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos3": Image.LANCZOS}


def files() -> dict[str, bytes]:
    """24 varied files: sizes, qualities, chroma, modes."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:400, :500]
    scene = np.stack([128 + 100 * np.sin(x / 17 + c) * np.cos(y / (9 + c)) for c in range(3)], -1)
    scene = np.clip(scene + rng.normal(0, 25, scene.shape), 0, 255).astype(np.uint8)
    found = {}

    def save(name, image, form, **options):
        out = io.BytesIO()
        image.save(out, form, **options)
        found[name] = out.getvalue()

    sizes = [(400, 500), (400, 401), (257, 500), (399, 300), (224, 224), (100, 120), (301, 230)]
    for i, (height, width) in enumerate(sizes):
        image = Image.fromarray(scene[:height, :width])
        save(f"jpeg {height}x{width}", image, "JPEG", quality=60 + 5 * i, subsampling=i % 3)
        save(f"png {height}x{width}", image, "PNG")
    image = Image.fromarray(scene)
    save("progressive", image, "JPEG", progressive=True, quality=85)
    save("gray jpeg", image.convert("L"), "JPEG")
    save("gray png", image.convert("L"), "PNG")
    save("cmyk", image.convert("CMYK"), "JPEG")
    save("palette", image.quantize(32), "PNG")
    save("alpha", image.convert("RGBA"), "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6  # the orientation, which no published recipe looks at
    save("rotated", image, "JPEG", exif=exif)
    save("low quality", image, "JPEG", quality=5)
    save("webp", image, "WEBP", quality=80)
    save("bmp", image, "BMP")
    return found


FILES = files()


def reference(data: bytes, crop: int, resize: int, interpolation: str) -> np.ndarray:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = image.size
    short = min(width, height)
    if short != resize:
        image = image.resize((resize * width // short, resize * height // short),
                             FILTERS[interpolation])
    width, height = image.size
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    pixels = np.asarray(image.crop((left, top, left + crop, top + crop)), np.float64)
    return (pixels / 255 - MEAN) / STD


@pytest.mark.parametrize("preset", PRESETS)
def test_the_input_of_a_published_weight_is_that_of_its_own_transforms(preset):
    crop, resize, interpolation = PRESETS[preset]
    transforms = [TRANSFORMS.bind(choice, "t")() for choice in (
        dict(name="resize_small", size=resize, interpolation=interpolation, library="pillow"),
        dict(name="center_crop", size=crop))]
    data = list(FILES.values())
    assert len(data) == 24
    tf = pipeline.tensorflow()
    images = tf.constant(data)
    split = Lookup(len(data), lambda i: {"image": images[i], "label": tf.constant(0)}, str)
    batches = pipeline.eval_batches(split, transforms, batch_size=8, rows=slice(0, 8), channels=3)
    made = np.concatenate([batch["image"] for batch in batches])
    normalised = np.asarray(normaliser(MEAN, STD, "float32")(made))
    for name, ours in zip(FILES, normalised, strict=True):
        expected = reference(FILES[name], crop, resize, interpolation)
        np.testing.assert_allclose(ours, expected, atol=2e-6, err_msg=name)
