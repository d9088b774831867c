"""Files in the formats that datasets are distributed in, with few and small images."""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from imgcls_jax import datasets
from imgcls_jax.data.batches import eval_batches
from imgcls_jax.datasets import _published


def jpeg(number: int, size: int = 8) -> bytes:
    """No two numbers give the same pixels."""
    image = np.random.default_rng(number).integers(0, 256, (size, size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG")
    return file.getvalue()


def pixels(data: bytes) -> bytes:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).tobytes()


def write(root: Path, files: dict[str, bytes]):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    """mode: "w" or "w:gz"."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def sizes(monkeypatch, **small: int):
    """The dataset is as if it had been published with so many images."""
    make = _published.source
    monkeypatch.setattr(_published, "source",
                        lambda name, **facts: make(name, **{**facts, "sizes": small}))


def batch(source, split: str) -> dict:
    """All of a split by our pipeline; what the split says of its labels is what is read."""
    opened = datasets.split(source, split)
    (read,) = eval_batches(opened, [], batch_size=opened.size, classes=len(source.classes),
                                    rows=slice(0, opened.size), channels=source.channels)
    if getattr(opened, "labels", None):
        np.testing.assert_array_equal(opened.labels(), read["label"])
        assert opened.labels().dtype == read["label"].dtype
    assert read["mask"].all()
    return read


def examples(source, split: str) -> dict[bytes, int]:
    """The pixels of each image -> its label."""
    read = batch(source, split)
    found = {image.tobytes(): label.tolist() for image, label in
             zip(read["image"], read["label"], strict=True)}
    assert len(found) == len(read["id"])
    return found


def paths(source, split: str) -> list[str]:
    """What each example is called, in their order."""
    opened = datasets.split(source, split)
    return [opened.where(index) for index in range(opened.size)]


def download(builder, place: Path, files: dict[str, bytes]):
    """Puts files where a TFDS builder looks for what it has downloaded; files: by URL.

    It trusts their names, which hold the checksum of the real ones.
    """
    from tensorflow_datasets.core.download import checksums, resource

    known = builder.url_infos or checksums.get_all_url_infos()
    place.mkdir(parents=True, exist_ok=True)
    for url, data in files.items():
        path = place / resource.get_dl_fname(url, known[url].checksum)
        path.write_bytes(data)
        info = {"urls": [url], "dataset_names": [builder.name], "url_info": known[url].asdict(),
                "original_fname": os.path.basename(url)}
        Path(f"{path}.INFO").write_text(json.dumps(info))


def prepare(name: str, data_dir: Path, files: dict[str, bytes], manual_dir: Path | None = None):
    """Runs the real TFDS builder of that name on local files."""
    import tensorflow_datasets

    builder = tensorflow_datasets.builder(name, data_dir=str(data_dir))
    download(builder, data_dir / "downloads", files)
    config = tensorflow_datasets.download.DownloadConfig(
        manual_dir=str(manual_dir) if manual_dir else None)
    builder.download_and_prepare(download_dir=str(data_dir / "downloads"),
                                 download_config=config)
