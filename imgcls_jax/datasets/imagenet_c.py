"""ImageNet-C: validation images with 19 corruptions of 5 severities (arXiv 1903.12261)."""

from pathlib import Path

from imgcls_jax.datasets import DATASETS, _files, _imagenet, _published
from imgcls_jax.errors import ConfigError
from imgcls_jax.types import Lookup, Source

ARCHIVES = {"noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
            "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
            "weather": ("frost", "snow", "fog", "brightness"),
            "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
            "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate")}
GROUP = {corruption: group for group, members in ARCHIVES.items() for corruption in members}


SEVERITIES = range(1, 6)


@DATASETS.register()
def imagenet_c(*, corruption: str | None = None, severity: int | None = None, data_dir: str = "",
               channels: int = 3) -> Source:
    """Split `validation`, in the order of ImageNet's. Images already are 224 x 224 JPEGs.

    corruption: such as "fog"; 15 of the 19 count in the benchmark's mean, the 4 of extra.tar do
    not. severity: 1 to 5. Without both, there is a split for each, such as `fog-3`, as the
    evaluator corruption_error needs. data_dir: a folder with
    CORRUPTION/SEVERITY/nXXXXXXXX/*.JPEG, in imagenet-c or not, or with the tar files noise, blur,
    weather, digital and extra.
    """
    if (corruption is None) != (severity is None):
        raise ConfigError(f"corruption={corruption} and severity={severity}: one is missing",
                          where="config.data", fix="give both, or neither for all of them")
    if corruption is None:
        parts = {f"{one}-{strength}": (one, strength) for one in GROUP for strength in SEVERITIES}
    elif corruption not in GROUP:
        raise ConfigError(f"there is no corruption {corruption!r}", where="config.data.corruption",
                          fix=f"use one of {sorted(GROUP)}")
    elif severity not in SEVERITIES:
        raise ConfigError(f"severity={severity} is out of range",
                          where="config.data.severity", fix="use 1 to 5")
    else:
        parts = {"validation": (corruption, severity)}

    def files(root: Path, split: str) -> Lookup:
        root = root / "imagenet-c" if (root / "imagenet-c").is_dir() else root
        one, strength = parts[split]
        part, group = f"{one}/{strength}", GROUP[one]
        found = _files.find(root, part, f"{group}/{part}", f"{group}.tar")
        within = f"{part}/".encode() if not isinstance(found, _files.Folder) else b""
        return _imagenet.by_folder(found, within=within, shuffle=False)

    asked = f"{corruption}/{severity}" if corruption else "CORRUPTION/SEVERITY"
    return _published.source(
        "imagenet_c", classes=_imagenet.CLASSES, sizes=dict.fromkeys(parts, 50_000),
        data_dir=data_dir, files=files,
        layout=f"{asked}/nXXXXXXXX/*.JPEG or {GROUP.get(corruption, 'GROUP')}.tar",
        channels=channels, image_size=(224, 224))
